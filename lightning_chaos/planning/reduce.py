"""The reduce plan for links as measured: which trees, and how much goes over each.

Model.  A piece of ``x`` bytes that goes over a tree loads each of its links by ``x`` both ways:
partial sums up, the result down; so it loads a member's network card by ``x`` times its links
in the tree.  Pieces are small and many, so that all trees are at work all the time: then a
vector takes as long as its slowest link or card, plus the round trip of the farthest member.

What is exact.  The least time of the slowest link is a fractional packing of spanning trees, and
no way to use the links both ways alike is faster (Tutte 1961, Nash-Williams 1961: without caps
of cards it is the worst, over all partitions of the members into p parts, of ``p - 1`` over the
rate between the parts).  A full mesh of equal links and cards gets exactly that, in stars.  For
given trees the shares are exact too (:mod:`lightning_chaos.planning.shares`).  The choice of the
trees is a heuristic, measured against the exact optimum in ``benchmarks/planning_reduce.py``;
every result brings a bound that is proved, by :meth:`Capacity.bound`.  A link whose two
directions differ counts as its slower one; other trees for the way up than for the way down
might do better there.

Why not exact: the optimum may need as many trees as there are links, and each piece of each
bucket costs every member messages.  There are at most three trees for each member here.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from lightning_chaos.errors import PlanError
from lightning_chaos.planning.capacity import Capacity, Edge
from lightning_chaos.planning.graph import Graph
from lightning_chaos.planning.mesh import cut_off, mesh_plan
from lightning_chaos.planning.shares import best_shares
from lightning_chaos.planning.values import ReducePlan, Tree

MESSAGE_S = 1e-4
"""What it costs a member to send or take in one message, seconds.

Two members on loopback reduce 4 KB in 0.7 ms, with six messages each."""

_GOOD_ENOUGH = 1.05
"""Direct trees are taken if no others can be faster by more: they relay nothing."""
_MAX_HEIGHT = 3
_FEW = 24
"""Most members for which shares are exact; they take seconds beyond."""
_MAX_SMALL_BYTES = 1 << 30
_PARTS = 10_000
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
    capacity = Capacity(graph)
    if len(graph.members) == 1:
        return Reduction(mesh_plan(graph.members), math.inf, 0.0, 0.0, math.inf)
    layout = _Layout(capacity)
    quick = layout.quick()
    trees, bound = _choose(capacity)
    slowest_s = _slowest_s(capacity, trees)
    rooted = [piece for edges, share in trees for piece in layout.pieces(edges, share, slowest_s)]
    rooted.sort(key=lambda piece: (piece.tree.root, piece.tree.parents))
    divisor = math.gcd(*(piece.share for piece in rooted))
    latency_s = max(piece.reach_s for piece in rooted) + layout.handling_s(p.tree for p in rooted)
    quick_s = quick.reach_s + layout.handling_s([quick.tree])
    plan = ReducePlan(
        members=len(graph.members),
        quick=quick.tree,
        small_bytes=_small(latency_s - quick_s, quick.byte_s - slowest_s),
        trees=tuple(piece.tree for piece in rooted),
        shares=tuple(piece.share // divisor for piece in rooted),
    )
    return Reduction(plan, 1 / slowest_s, latency_s, quick_s, bound)


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
    layout = _Layout(capacity)
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
    parts = [round(_PARTS * rate / total) for rate in rates]
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


# ---- roots and pieces -----------------------------------------------------------------------


class _Piece(NamedTuple):
    tree: Tree
    share: int
    reach_s: float
    """Round trip of the farthest member, seconds."""
    byte_s: float
    """Seconds per byte of a piece that goes over the tree alone."""


class _Place(NamedTuple):
    """Of a member in a tree."""

    far_s: float
    byte_s: float
    parent: int


class _Layout:
    """Hangs trees on their roots."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._count = len(capacity.members)
        self._near: list[dict[int, tuple[float, float]]] = [{} for _ in capacity.members]
        for (a, b), round_trip_s in capacity.round_trip_s.items():
            byte_s = 2 / capacity.capacities[capacity.links[a, b]]
            self._near[a][b] = self._near[b][a] = round_trip_s + 4 * MESSAGE_S, byte_s

    def quick(self) -> _Piece:
        """The tree whose farthest member is nearest; of equals the one of the oldest root."""
        everybody = [set(near) for near in self._near]
        hung = (self._hang(root, everybody) for root in range(self._count))
        best = min(hung, key=lambda piece: piece.reach_s)
        card_s = self._capacity.seconds_per_byte(self._capacity.uses(self.edges(best.tree)))
        return best._replace(byte_s=max(best.byte_s, card_s))

    def pieces(self, edges: Sequence[Edge], share: int, slowest_s: float) -> list[_Piece]:
        """The tree as often as its pieces are to be cut, from each of its centres in turn.

        A piece waits at each member on its way for the whole of it to come; cut finer, so that
        this takes no longer than the slowest link has to work anyway.
        """
        near: list[set[int]] = [set() for _ in range(self._count)]
        for a, b in edges:
            near[a].add(b)
            near[b].add(a)
        centres = [self._hang(root, near) for root in self._centres(near)]
        alone_s = centres[0].byte_s * share / _PARTS
        number = math.ceil(alone_s / slowest_s - 1e-3)
        number = min(number, share)
        cuts = [share * i // number for i in range(number + 1)]
        return [
            centres[i % len(centres)]._replace(share=cuts[i + 1] - cuts[i]) for i in range(number)
        ]

    def edges(self, tree: Tree) -> tuple[Edge, ...]:
        """The links of a tree.

        Raises:
            PlanError: one of them is not there.
        """
        edges = tuple((min(link), max(link)) for link in tree.links(self._count))
        for a, b in edges:
            if b not in self._near[a]:
                names = self._capacity.members
                raise PlanError(
                    f"the plan uses the link {names[a]} - {names[b]}, which is not there"
                )
        return edges

    def reach_s(self, tree: Tree) -> float:
        """Round trip of the farthest member of a tree, seconds."""
        farthest_s = 0.0
        for rank in range(self._count):
            way_s, here = 0.0, rank
            while (upper := tree.parent(here)) is not None:
                way_s, here = way_s + self._near[here][upper][0], upper
            farthest_s = max(farthest_s, way_s)
        return farthest_s

    def handling_s(self, trees: Iterable[Tree]) -> float:
        """What the busiest member spends on the messages of all these trees, seconds."""
        busy = [0] * self._count
        for tree in trees:
            for rank, parent in tree.links(self._count):  # up and down, at both ends
                busy[rank] += 2
                busy[parent] += 2
        return max(busy) * MESSAGE_S

    def _centres(self, near: Sequence[Iterable[int]]) -> list[int]:
        """Whose farthest member is nearest in a tree: it is one of the two that are farthest."""
        one = self._reach(0, near)
        one = self._reach(max(one, key=one.__getitem__), near)
        other = self._reach(max(one, key=one.__getitem__), near)
        farthest = [max(one[rank].far_s, other[rank].far_s) for rank in range(self._count)]
        nearest = min(farthest) * (1 + 1e-9)
        return [rank for rank, far_s in enumerate(farthest) if far_s <= nearest]

    def _hang(self, root: int, near: Sequence[Iterable[int]]) -> _Piece:
        """The tree of shortest round trips from this root over the links in ``near``."""
        reach = self._reach(root, near)
        star = all(place.parent == root for place in reach.values())
        tree = Tree(root, () if star else tuple(reach[r].parent for r in range(self._count)))
        far_s = max(place.far_s for place in reach.values())
        return _Piece(tree, 0, far_s, max(place.byte_s for place in reach.values()))

    def _reach(self, root: int, near: Sequence[Iterable[int]]) -> dict[int, _Place]:
        """Shortest round trips from there over the links in ``near`` (Dijkstra)."""
        reach: dict[int, _Place] = {}
        queue = [(0.0, 0.0, root, root)]
        while queue:
            far_s, byte_s, rank, parent = heapq.heappop(queue)
            if rank in reach:
                continue
            reach[rank] = _Place(far_s, byte_s, parent)
            for other in near[rank]:
                if other not in reach:
                    hop_s, hop_byte_s = self._near[rank][other]
                    heapq.heappush(queue, (far_s + hop_s, byte_s + hop_byte_s, other, rank))
        if len(reach) < self._count:
            raise PlanError(cut_off(self._capacity.members, reach))
        return reach
