"""How near reduce plans are to the best there can be, and how long they take to make.

    python benchmarks/planning_reduce.py [--graphs 1000] [--smoke] [--write FILE.md]

Quality: random graphs of 3 to 12 members (``random_graph`` in ``tests/flow_bound.py``: some
links or all, equal rates or 50 to 1000 Mbit/s, with and without caps of network cards), the time
of the slowest link or card against the least that any mix of any trees can have, by the flow
program; for at most four members also against the program over the list of all trees.

Time: of one process on its processor, the best of some; the lost link is the one that most trees
use.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import msgspec
from common import machine, parser, publish

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from flow_bound import brute_force, flow_optimum, random_graph

from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Graph, Link
from lightning_chaos.planning.mesh import mesh_plan, reroute
from lightning_chaos.planning.reduce import plan_reduce
from lightning_chaos.planning.values import ReducePlan

SEED = 6


def ratios(graphs: list[Graph], best_mbit: Callable[[Graph], float]) -> list[tuple[float, Graph]]:
    """How many times the least time each plan takes."""
    return [(best_mbit(g) * BYTES_PER_S_PER_MBIT / plan_reduce(g).bytes_per_s, g) for g in graphs]


def quality(name: str, found: list[tuple[float, Graph]]) -> str:
    """A row of the first table."""
    ordered = sorted(ratio for ratio, _ in found)
    cells = statistics.median(ordered), ordered[round(0.95 * (len(ordered) - 1))], ordered[-1]
    return f"| {name} | {len(found)} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |"


def told(graph: Graph) -> str:
    """A graph in one line."""
    links = (f"{a}-{b} {x.rate_mbit:.0f}" for (a, b), x in graph.links.items() if a < b)
    caps = (f"{name} {min(c.up_mbit, c.down_mbit):.0f}" for name, c in graph.caps.items())
    return f"links {', '.join(links)}; caps {', '.join(caps) or 'none'} (Mbit/s)"


def best_ms(work: Callable[[], object], times: int) -> float:
    """Least of some times, milliseconds of a processor."""
    seconds = []
    for _ in range(times):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return min(seconds) * 1e3


def timing(count: int, kind: str, times: int) -> str:
    """A row of the second table."""
    names = tuple(f"n{i}" for i in range(count))
    rng = random.Random(SEED)
    rates = {
        pair: 300.0 if kind == "equal" else rng.uniform(50, 1000) for pair in combinations(names, 2)
    }
    links = {way: Link(x, 1) for (a, b), x in rates.items() for way in ((a, b), (b, a))}
    graph = Graph(names, links)
    plan: ReducePlan = mesh_plan(names) if kind == "links only" else plan_reduce(graph).plan
    make = (lambda: mesh_plan(names)) if kind == "links only" else (lambda: plan_reduce(graph))
    used = Counter(tuple(sorted(way)) for tree in plan.trees for way in tree.links(count))
    (a, b), _ = used.most_common(1)[0]
    lost = [(names[a], names[b])]
    moved = reroute(plan, names, lost)
    changed = sum(a is not b for a, b in zip(plan.trees, moved.trees, strict=True))
    return (
        f"| {count} | {kind} | {best_ms(make, 1 if count > 16 else times):.1f} "
        f"| {best_ms(lambda: reroute(plan, names, lost), times):.2f} "
        f"| {changed} of {len(plan.trees)} "
        f"| {best_ms(lambda: moved.check(names, lost), times):.2f} "
        f"| {len(msgspec.msgpack.encode(plan))} |"
    )


def main() -> None:
    """Measure and print; see the module."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument(
        "--graphs", type=int, default=1000, help="how many are drawn (default: %(default)s)"
    )
    asked = options.parse_args()
    count, sizes, times = (asked.graphs, (4, 16, 32, 128), 20)
    if asked.smoke:
        count, sizes, times = 10, (4, 16), 2
    rng = random.Random(SEED)
    graphs = [random_graph(rng, 3 + i % 10) for i in range(count)]
    against_flow = ratios(graphs, flow_optimum)
    few = ratios([random_graph(rng, 2 + i % 3) for i in range(max(3, count // 3))], brute_force)
    worst, graph = max(against_flow, key=lambda pair: pair[0])
    lines = [
        machine(),
        "Time of the slowest link or card in the plan, as a multiple of the least possible.",
        "",
        "| members, against | graphs | median | 95 of 100 | worst |",
        "|---|---|---|---|---|",
        *(
            quality(
                f"{low} to {high}, flow program",
                [found for found in against_flow if low <= len(found[1].members) <= high],
            )
            for low, high in ((3, 12), (3, 5), (6, 8), (9, 12))
        ),
        quality("2 to 4, all trees", few),
        "",
        f"The worst, {worst:.3f}: {told(graph)}.",
        "",
        "Milliseconds of a processor; full meshes: rates not asked, equal, or 50 to 1000 Mbit/s.",
        "",
        "| members | rates | plan | lost link | trees it moves | check | bytes of the plan |",
        "|---|---|---|---|---|---|---|",
        *(timing(n, kind, times) for n in sizes for kind in ("links only", "equal", "unlike")),
    ]
    publish("\n".join(lines) + "\n", asked.write)


if __name__ == "__main__":
    main()
