"""The reduce plan for links as measured: which trees, and how much goes over each.

Model.  A piece of ``x`` bytes that goes over a tree loads each of its links by ``x`` both ways:
partial sums up, the result down; so it loads a member's network card by ``x`` times its links
in the tree.  Pieces are small and many, so that all trees are at work all the time: then a
vector takes as long as its slowest link or card, plus the round trip of the farthest member.

What is exact.  The least time of the slowest link is a fractional packing of spanning trees, and
no way to use the links both ways alike is faster (Tutte 1961, Nash-Williams 1961: without caps
of cards it is the worst, over all partitions of the members into p parts, of ``p - 1`` over the
rate between the parts).  A full mesh of equal links and cards gets exactly that, in stars.  For
given trees the shares are exact too (:mod:`lightning_chaos.planning.shares`), and for four members
or fewer all trees are given.  The choice among more is a heuristic, measured against the exact
optimum in ``benchmarks/planning_reduce.py``; every result brings a bound that is proved, by
:meth:`Capacity.bound`.  A link whose two directions differ counts as its slower one; other trees
for the way up than for the way down might do better there.

Why not exact: the optimum may need as many trees as there are links, and each piece of each
bucket costs every member messages.  At most three trees for each member are tried.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

import msgspec

from lightning_chaos.planning.capacity import Capacity, Edge
from lightning_chaos.planning.graph import Graph
from lightning_chaos.planning.layout import PARTS, Layout
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.planning.shares import best_shares
from lightning_chaos.planning.values import ReducePlan

_GOOD_ENOUGH = 1.02
"""Direct trees are taken if no others can be faster by more: they relay nothing."""
_TINY = 4
"""Most members for whom all trees are tried: there are no more than 16."""
_MAX_HEIGHT = 3
_FEW = 24
"""Most members for which shares are exact; they take seconds beyond."""
_MAX_SMALL_BYTES = 1 << 30
_LEAST_PARTS = 25
"""A tree of less is left out: its messages would cost more than it carries."""


class Reduction(msgspec.Struct, frozen=True):
    """A reduce plan and what it promises."""

    plan: ReducePlan
    bytes_per_s: float
    """Of a long vector, through the slowest link; infinite for one member."""
    latency_s: float
    """What even the shortest vector that is cut takes: round trips and messages, seconds."""
    quick_s: float
    """What an empty message from everybody to everybody takes over the quick tree, seconds."""
    bound_bytes_per_s: float
    """No trees are faster than that."""

    def seconds(self, total_bytes: int) -> float:
        """Predicted time to reduce that many bytes, in pieces, seconds."""
        return self.latency_s + total_bytes / self.bytes_per_s

    def bound_s(self, total_bytes: int) -> float:
        """No trees reduce that many bytes in less, seconds."""
        return total_bytes / self.bound_bytes_per_s


def plan_reduce(graph: Graph) -> Reduction:
    """The plan whose slowest link or network card is done earliest.

    The same for the same graph, in whatever order its links are given.

    Args:
        graph: the cluster; members oldest first, as in the view.

    Raises:
        PlanError: there are no members, or the links do not join them all.
    """
    return next(finer_and_finer(graph))


def finer_and_finer(graph: Graph) -> Iterator[Reduction]:
    """That plan, and then with its pieces cut twice, three times … as finely, without end.

    Its slowest link stays as slow; who relays a piece waits less for the whole of it, and everybody
    has more messages.

    Args:
        graph: as in :func:`plan_reduce`.

    Raises:
        PlanError: there are no members, or the links do not join them all.
    """
    capacity = Capacity(graph)
    if len(graph.members) == 1:
        yield from itertools.repeat(
            Reduction(mesh_plan(graph.members), math.inf, 0.0, 0.0, math.inf)
        )
    layout = Layout(capacity)
    quick = layout.quick()
    quick_s = quick.reach_s + layout.handling_s([quick.tree])
    trees, bound = _choose(capacity)
    slowest_s = _slowest_s(capacity, trees)
    for finer in itertools.count(1):
        pieces = layout.pieces(trees, slowest_s, finer)
        divisor = math.gcd(*(piece.share for piece in pieces))
        latency_s = max(p.reach_s for p in pieces) + layout.handling_s(p.tree for p in pieces)
        plan = ReducePlan(
            members=len(graph.members),
            quick=quick.tree,
            small_bytes=_small(latency_s - quick_s, quick.byte_s - slowest_s),
            trees=tuple(piece.tree for piece in pieces),
            shares=tuple(piece.share // divisor for piece in pieces),
        )
        yield Reduction(plan, 1 / slowest_s, latency_s, quick_s, bound)


def predict(plan: ReducePlan, graph: Graph) -> Reduction:
    """What a plan promises on links for which it may not have been made.

    Args:
        plan: without a fault, over links that are in the graph.
        graph: the cluster; members oldest first, as in the view.

    Raises:
        PlanError: there are no members, or the plan uses a link that is not in the graph.
    """
    capacity = Capacity(graph)
    if len(graph.members) == 1:
        return Reduction(plan, math.inf, 0.0, 0.0, math.inf)
    layout = Layout(capacity)
    trees = [
        (layout.edges(tree), share) for tree, share in zip(plan.trees, plan.shares, strict=True)
    ]
    latency_s = max(map(layout.reach_s, plan.trees)) + layout.handling_s(plan.trees)
    quick_s = layout.reach_s(plan.quick) + layout.handling_s([plan.quick])
    rate = 1 / _slowest_s(capacity, trees)
    return Reduction(plan, rate, latency_s, quick_s, capacity.simple_bound)


def _small(more_latency_s: float, less_byte_s: float) -> int:
    """Bytes up to which the quick tree is the faster one."""
    if more_latency_s <= 0:
        return 0
    if less_byte_s <= 0:
        return _MAX_SMALL_BYTES
    return min(_MAX_SMALL_BYTES, int(more_latency_s / less_byte_s))


# ---- which trees, and how much over each ----------------------------------------------------


def _choose(capacity: Capacity) -> tuple[list[tuple[tuple[Edge, ...], int]], float]:
    """Trees with their shares, and what no trees can exceed, bytes/s."""
    count = len(capacity.members)
    pool = capacity.pool(count, height=1)
    trees, bound = _weigh(capacity, pool)
    if bound * _slowest_s(capacity, trees) <= _GOOD_ENOUGH:
        return trees, bound
    if count <= _TINY:
        return _weigh(capacity, dict.fromkeys(capacity.all_trees(), 0.0))
    for edges, rate in capacity.pool(max(16, 2 * count), height=_MAX_HEIGHT).items():
        pool[edges] = pool.get(edges, 0.0) + rate
    trees, closer = _weigh(capacity, pool)
    return trees, min(bound, closer)


def _weigh(
    capacity: Capacity, pool: dict[tuple[Edge, ...], float]
) -> tuple[list[tuple[tuple[Edge, ...], int]], float]:
    """Of these trees those that help, with their shares, and a bound, bytes/s."""
    rates, bound = list(pool.values()), capacity.simple_bound
    if len(capacity.members) <= _FEW:
        best = best_shares([capacity.uses(edges) for edges in pool], capacity.capacities)
        rates, bound = list(best.rates), min(bound, capacity.bound(best.prices))
    total = sum(rates)
    parts = [round(PARTS * rate / total) for rate in rates]
    least = min(_LEAST_PARTS, max(parts))
    return [(e, part) for e, part in zip(pool, parts, strict=True) if part >= least], bound


def _slowest_s(capacity: Capacity, trees: Iterable[tuple[tuple[Edge, ...], int]]) -> float:
    """Seconds per byte of the slowest link or card when these trees share a vector."""
    trees = list(trees)
    total = sum(share for _, share in trees)
    load: dict[int, float] = {}
    for edges, share in trees:
        for row, use in capacity.uses(edges).items():
            load[row] = load.get(row, 0.0) + use * share / total
    return capacity.seconds_per_byte(load)
