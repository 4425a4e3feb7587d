"""How long a pull schedule takes to compute, by rounding, shard by shard and by a solver.

Rates of 10 to 100 MB/s, releases within a second, overheads within a millisecond, drawn with a
fixed seed; a plan holds counts, ranges and predicted times of every donor.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from common import machine, milliseconds, parser, publish

from lightning_chaos.planning.chain import plan_over_chain, shard_chain
from lightning_chaos.planning.completion import greedy
from lightning_chaos.planning.milp import prove
from lightning_chaos.planning.pull import DonorLink, plan_pull

SIZE = 64 << 10
SIZES = [(5, 1_000), (64, 1_000), (64, 100_000), (1_000, 100_000)]
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


def main() -> None:
    """Measure and print; see the module."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument(
        "--repeat", type=int, default=200, help="times each (default: %(default)s)"
    )
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
    ]
    publish("\n".join(lines) + "\n", asked.write)


if __name__ == "__main__":
    main()
