"""A reduction played through: when does everybody have the result of a vector in one bucket?

Each way of a link sends one piece after the other, in the order in which they are ready: at first
the pieces of those who wait for nobody, in the order of the plan.  A member sends a sum on when it
has all that belongs to it, and a result as soon as it has it; computing, round trips and network
cards count for nothing here.
"""

from __future__ import annotations

import heapq

from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Graph
from lightning_chaos.planning.values import ReducePlan, Tree


def one_bucket_byte_s(plan: ReducePlan, graph: Graph) -> float:
    """Seconds per byte of a vector that is cut into no more pieces than the plan has trees.

    Args:
        plan: without a fault, over links that are in the graph.
        graph: the cluster; members oldest first, as in the view.
    """
    stage = _Stage(plan, graph)
    while stage.wants:
        stage.play()
    return stage.end_s


class _Stage:
    """Who has sent what so far, for a vector of one byte."""

    def __init__(self, plan: ReducePlan, graph: Graph) -> None:
        self.end_s = 0.0
        self.wants: list[tuple[float, int, int, int, int]] = []
        """When, in which order, which piece is to go from whom to whom."""
        self._trees, self._count, names = plan.trees, plan.members, graph.members
        total = sum(plan.shares) * BYTES_PER_S_PER_MBIT
        self._parts = [share / total for share in plan.shares]
        ranks = range(plan.members)
        self._mbit = {
            (a, b): link.rate_mbit
            for a in ranks
            for b in ranks
            if (link := graph.links.get((names[a], names[b])))
        }
        self._free_s = dict.fromkeys(self._mbit, 0.0)
        self._asked = 0
        self._lacks = [[len(tree.children(r, plan.members)) for r in ranks] for tree in plan.trees]
        self._whole_s = [[0.0] * plan.members for _ in plan.trees]
        for piece, tree in enumerate(plan.trees):
            for rank in ranks:
                if not self._lacks[piece][rank]:
                    self._up(0.0, piece, tree, rank)

    def play(self) -> None:
        """The next piece goes over its way."""
        ready_s, _, piece, sender, receiver = heapq.heappop(self.wants)
        way, tree = (sender, receiver), self._trees[piece]
        end_s = max(ready_s, self._free_s[way]) + self._parts[piece] / self._mbit[way]
        self._free_s[way] = end_s
        self.end_s = max(self.end_s, end_s)
        if tree.parent(sender) != receiver:
            self._down(end_s, piece, tree, receiver)
            return
        self._lacks[piece][receiver] -= 1
        whole_s = self._whole_s[piece][receiver] = max(end_s, self._whole_s[piece][receiver])
        if not self._lacks[piece][receiver]:
            self._up(whole_s, piece, tree, receiver)

    def _up(self, now_s: float, piece: int, tree: Tree, rank: int) -> None:
        """That member has the sum of all below it."""
        parent = tree.parent(rank)
        if parent is None:
            self._down(now_s, piece, tree, rank)
        else:
            self._want(now_s, piece, rank, parent)

    def _down(self, now_s: float, piece: int, tree: Tree, rank: int) -> None:
        """That member has the result."""
        for child in tree.children(rank, self._count):
            self._want(now_s, piece, rank, child)

    def _want(self, now_s: float, piece: int, sender: int, receiver: int) -> None:
        self._asked += 1
        heapq.heappush(self.wants, (now_s, self._asked, piece, sender, receiver))
