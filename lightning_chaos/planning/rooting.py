"""On whom the trees of a plan hang, so that links work both ways at once.

A link of a tree carries a sum towards the root and later, the other way, the result.  If all that
goes over a slow link is rooted on one side of it, it works one way first and then the other: for
twice the time it needs.  So pieces are rooted in turn where the ways that they load with sums have
least to do, but not so far from anybody that a piece alone takes long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_SAME = 3
"""Decimals of the whole reduction's time: what differs by less counts as equal."""


class Unrooted:
    """A tree that hangs on nobody yet.

    Args:
        near: for every member its neighbours, and how long the link to each has to work one way
            if the whole vector goes over the tree.
    """

    def __init__(self, near: Sequence[Mapping[int, float]]) -> None:
        self.near = near
        one = self._far_from(0)
        one = self._far_from(one.index(max(one)))
        other = self._far_from(one.index(max(one)))
        # Whoever is farthest from a member of a tree is one of the two farthest from each other.
        self.far = [max(pair) for pair in zip(one, other, strict=True)]
        """Of every member: one way to or from whoever is farthest, in the same unit."""

    def walk(self, root: int) -> list[tuple[int, int]]:
        """Everybody but the root with its parent, parents first."""
        found = [(root, root)]
        for rank, parent in found:
            found.extend((other, rank) for other in self.near[rank] if other != parent)
        return found[1:]

    def _far_from(self, root: int) -> list[float]:
        far = [0.0] * len(self.near)
        for rank, parent in self.walk(root):
            far[rank] = far[parent] + self.near[rank][parent]
        return far


class Rooting:
    """Chooses roots for one piece after the other, and remembers what goes up where.

    All times are in units of what the slowest link has to work in all.
    """

    def __init__(self) -> None:
        self._up: dict[tuple[int, int], float] = {}
        """By the way that sums take."""

    def choose(self, tree: Unrooted, share: float) -> int:
        """The root of a piece.

        Of all members the one for whom the piece itself, up and down, and what it adds to the
        squares of what sums take on every way, come to least.

        Args:
            tree: its way.
            share: of the vector, 0 < share <= 1.
        """
        way, up = tree.walk(0), self._up
        costs = [0.0] * len(tree.near)
        for rank, parent in way:  # against the root 0: the links between turn the other way
            turned = up.get((parent, rank), 0.0) - up.get((rank, parent), 0.0)
            costs[rank] = costs[parent] + 2 * share * tree.near[rank][parent] * turned
        totals = [
            round(cost + 2 * share * far, _SAME) for cost, far in zip(costs, tree.far, strict=True)
        ]
        root = totals.index(min(totals))
        for rank, parent in tree.walk(root):
            up[rank, parent] = up.get((rank, parent), 0.0) + share * tree.near[rank][parent]
        return root
