"""Trees hung on their roots: who is how far, what a piece costs, how finely it is cut."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lightning_chaos.errors import PlanError
from lightning_chaos.planning.capacity import Capacity, Edge
from lightning_chaos.planning.mesh import cut_off
from lightning_chaos.planning.rooting import Rooting, Unrooted
from lightning_chaos.planning.values import Tree

MESSAGE_S = 1e-4
"""What it costs a member to send or take in one message, seconds.

Two members on loopback reduce 4 KB in 0.7 ms, with six messages each."""
PARTS = 10_000
"""A vector has so many: shares are told in them."""


class Piece(NamedTuple):
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


class Layout:
    """Hangs trees on their roots."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._count = len(capacity.members)
        self._near: list[dict[int, tuple[float, float]]] = [{} for _ in capacity.members]
        for (a, b), round_trip_s in capacity.round_trip_s.items():
            byte_s = 2 / capacity.capacities[capacity.links[a, b]]
            self._near[a][b] = self._near[b][a] = round_trip_s + 4 * MESSAGE_S, byte_s

    def quick(self) -> Piece:
        """The tree whose farthest member is nearest; of equals the one of the oldest root."""
        everybody = [set(near) for near in self._near]
        hung = (self._hang(root, everybody) for root in range(self._count))
        best = min(hung, key=lambda piece: piece.reach_s)
        card_s = self._capacity.seconds_per_byte(self._capacity.uses(self.edges(best.tree)))
        return best._replace(byte_s=max(best.byte_s, card_s))

    def pieces(
        self, trees: Sequence[tuple[Sequence[Edge], int]], slowest_s: float, cuts: int
    ) -> list[Piece]:
        """The trees, each as often as its pieces are to be cut; those with the longest way first.

        A piece waits at each member on its way for the whole of it to come; cut finer, so that
        this takes no longer than the slowest link has to work anyway.

        Args:
            trees: their links, and how much of the vector goes over each, in :data:`PARTS`.
            slowest_s: per byte of the vector, of the slowest link or card.
            cuts: how many times finer than that.
        """
        rooting = Rooting()
        jobs = []
        for order, (edges, share) in enumerate(trees):
            tree = self._unrooted(edges, slowest_s)
            alone = 2 * min(tree.far) * share / PARTS
            number = min(share, cuts * max(1, math.ceil(alone - 1e-3)))  # a card may be slower
            for turn in range(number):
                part = share * (turn + 1) // number - share * turn // number
                jobs.append((turn, -share, order, tree, part))
        # By turns, so that the next of a tree finds what those of the others need.
        pieces = [
            self._hang(rooting.choose(tree, part / PARTS), tree.near)._replace(share=part)
            for _, _, _, tree, part in sorted(jobs, key=lambda job: job[:3])
        ]
        return sorted(
            pieces, key=lambda p: (-round(p.byte_s / slowest_s, 3), p.tree.root, p.tree.parents)
        )

    def _unrooted(self, edges: Iterable[Edge], slowest_s: float) -> Unrooted:
        near: list[dict[int, float]] = [{} for _ in range(self._count)]
        for a, b in edges:
            near[a][b] = near[b][a] = self._near[a][b][1] / 2 / slowest_s
        return Unrooted(near)

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

    def _hang(self, root: int, near: Sequence[Iterable[int]]) -> Piece:
        """The tree of shortest round trips from this root over the links in ``near``."""
        reach = self._reach(root, near)
        star = all(place.parent == root for place in reach.values())
        tree = Tree(root, () if star else tuple(reach[r].parent for r in range(self._count)))
        far_s = max(place.far_s for place in reach.values())
        return Piece(tree, 0, far_s, max(place.byte_s for place in reach.values()))

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
