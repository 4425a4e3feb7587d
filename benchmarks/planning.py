"""How long a pull schedule takes to compute, by rounding, shard by shard and by a solver.

Rates of 10 to 100 MB/s, releases within a second, overheads within a millisecond, drawn with a
fixed seed; a plan holds counts, ranges and predicted times of every donor.

The second table is of several newcomers that pass on to each other what they get: when the last one
has 200 MB, against the least that any schedule takes by the flow program (``multicast_optimum`` in
``tests/flow_bound.py``), on random links and cards without latency (``random_multicast`` there).
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from common import machine, milliseconds, parser, publish

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from flow_bound import multicast_optimum, random_multicast

from lightning_chaos.planning.chain import plan_over_chain, shard_chain
from lightning_chaos.planning.completion import greedy
from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT
from lightning_chaos.planning.milp import prove
from lightning_chaos.planning.pull import DonorLink, plan_pull
from lightning_chaos.planning.several import plan_several

SIZE = 64 << 10
SIZES = [(5, 1_000), (64, 1_000), (64, 100_000), (1_000, 100_000)]
STATE_BYTES = 200_000_000
SEVERAL = [(1, 2, 100), (3, 3, 100), (5, 4, 100), (16, 6, 10)]
"""Donors, newcomers, graphs."""
SOLVED = [(5, 1_000), (64, 1_000)]
"""What the solver is asked for as well."""


def drawn(number: int) -> list[DonorLink]:
    """Donors of a seed."""
    chance = random.Random(number)
    return [
        DonorLink(
            f"donor-{i}",
            chance.uniform(1e7, 1e8),
            chance.uniform(0, 1),
            chance.uniform(0, 1e-3),
        )
        for i in range(number)
    ]


def timed(repeat: int, work: Callable[[], object]) -> str:
    """Milliseconds of some work."""
    samples = []
    for _ in range(repeat):
        begun = time.perf_counter()
        work()
        samples.append(time.perf_counter() - begun)
    return milliseconds(samples, digits=2)


def row(donors: list[DonorLink], shards: int, repeat: int) -> str:
    """One line of the table."""
    total = shards * SIZE
    periods = [donor.shard_s(SIZE) for donor in donors]
    releases = [donor.release_s for donor in donors]
    cells = [
        timed(repeat, lambda: plan_pull(total, SIZE, donors)),
        timed(repeat, lambda: plan_over_chain(total, shard_chain(total), donors)),
        timed(max(1, repeat // 10), lambda: greedy(shards, periods, releases)),
        timed(max(1, repeat // 10), lambda: prove(total, [SIZE], donors))
        if (len(donors), shards) in SOLVED
        else "",
    ]
    return f"| {len(donors):,} | {shards:,} | {' | '.join(cells)} |"


def several(donors: int, newcomers: int, graphs: int) -> str:
    """One line of the second table."""
    chance = random.Random(f"{donors} {newcomers}")
    ratios, seconds = [], []
    for _ in range(graphs):
        graph = random_multicast(chance, donors, newcomers)
        still = {e: msgspec.structs.replace(x, latency_ms=0.0) for e, x in graph.links.items()}
        graph = msgspec.structs.replace(graph, links=still)
        old, new = list(graph.members[:donors]), list(graph.members[donors:])
        begun = time.perf_counter()
        plan = plan_several(STATE_BYTES, [SIZE], graph, new, old, {})
        seconds.append(time.perf_counter() - begun)
        least_s = STATE_BYTES / (multicast_optimum(graph, new) * BYTES_PER_S_PER_MBIT)
        ratios.append(plan.makespan_s / least_s)
    cells = statistics.median(ratios), max(ratios)
    told = " | ".join(f"{cell:.3f}" for cell in cells)
    return f"| {donors} | {newcomers} | {graphs} | {told} | {milliseconds(seconds)} |"


def main() -> None:
    """Measure and print; see the module."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--repeat", type=int, default=200)
    asked = options.parse_args()
    repeat = 2 if asked.smoke else asked.repeat
    sizes = SIZES[:1] if asked.smoke else SIZES
    lines = [
        machine(),
        "Shards of 64 KiB; median and the middle eight tenths in ms.",
        "",
        "| donors | shards | plan | best of 7 sizes | shard by shard | proved by CBC |",
        "|---|---|---|---|---|---|",
        *(row(drawn(donors), shards, repeat) for donors, shards in sizes),
        "",
        "Several newcomers, who pass on what they get; multiples of the least time, and ms.",
        "",
        "| donors | newcomers | graphs | median | worst | plan |",
        "|---|---|---|---|---|---|",
        *(several(u, m, 1 if asked.smoke else graphs) for u, m, graphs in SEVERAL),
    ]
    publish("\n".join(lines) + "\n", asked.write)


if __name__ == "__main__":
    main()
