"""Reduce plans from what is known at once: which links are there.

All links and members count as equal.  With every link there, each member adds up an equal share,
straight from and to everybody (direct reduce-scatter and all-gather): no plan is faster, since a
vector of S bytes then loads each of the n(n-1)/2 links by 2S/n each way, and any reduction must
move 2(n-1)S bytes in all.  Where a link is missing, members in between relay partial sums and
results; this is a heuristic, spread evenly (:mod:`lightning_chaos.planning.reduce` is exact).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from lightning_chaos.errors import PlanError
from lightning_chaos.planning.values import Pair, ReducePlan, Tree, pairs_of

_WHOLE = 2520
"""Share of a member that has all its links: divides well."""


def mesh_plan(members: Sequence[str], missing: Iterable[Pair] = ()) -> ReducePlan:
    """The plan for equal links: direct where they are there, relayed where one is missing.

    Args:
        members: identities, oldest first.
        missing: links that are not there; pairs of which one is no member do not matter.

    Raises:
        PlanError: the links that are left do not join all members, or there are none.
    """
    if not members:
        raise PlanError("there is nobody to plan for; a plan needs at least one member")
    dead = pairs_of(members, missing)
    if not dead:
        return ReducePlan.direct((1,) * len(members))
    # The tree of a member that lacks m links loads m others besides its own, so it carries less.
    lacks = [0] * len(members)
    for pair in dead:
        for rank in pair:
            lacks[rank] += 1
    plan = reroute(ReducePlan.direct([_WHOLE // (1 + m) for m in lacks]), members, missing)
    count = len(members)
    quick = min(plan.trees, key=lambda tree: (tree.height(tree.root, count), tree.root))
    return msgspec.structs.replace(plan, quick=quick)


def reroute(plan: ReducePlan, members: Sequence[str], missing: Iterable[Pair]) -> ReducePlan:
    """The same plan without the missing links.

    Shares, roots and the order of trees stay, so chunks keep their numbers and places; a tree
    that used none of the links stays as it is, and of the others only what hung on those moves.

    Args:
        plan: for these members, without a fault but for the links.
        members: identities, oldest first.
        missing: all links that are not there, those that the plan never used included.

    Raises:
        PlanError: the links that are left do not join all members.
    """
    mender = _Mender(plan, members, pairs_of(members, missing))
    trees = tuple(
        mender.mend(tree, share) for tree, share in zip(plan.trees, plan.shares, strict=True)
    )
    return msgspec.structs.replace(plan, quick=mender.mend(plan.quick, 0), trees=trees)


class _Mender:
    """Replaces dead links of trees, one tree after the other, so that no live link gets it all."""

    def __init__(
        self, plan: ReducePlan, members: Sequence[str], dead: Sequence[tuple[int, int]]
    ) -> None:
        self._members = members
        count = len(members)
        self._near = [set(range(count)) - {rank} for rank in range(count)]
        for a, b in dead:
            self._near[a].discard(b)
            self._near[b].discard(a)
        self._star = [0] * count
        self._extra: dict[tuple[int, int], int] = {}
        self._relayed = [0] * count
        for tree, share in zip(plan.trees, plan.shares, strict=True):
            if tree.parents:
                for rank, parent in enumerate(tree.parents):
                    self._load(rank, parent, share)
            else:
                self._star[tree.root] += share

    def mend(self, tree: Tree, share: int) -> Tree:
        """The tree without dead links; itself if it has none."""
        count, root = len(self._members), tree.root
        if all(parent in self._near[rank] for rank, parent in tree.links(count)):
            return tree
        parents = list(tree.parents) or [root] * count
        below: list[list[int]] = [[] for _ in range(count)]
        loose = set()
        for rank, parent in enumerate(parents):
            if parent in self._near[rank]:
                below[parent].append(rank)
            elif rank != root:
                loose.add(rank)
        depth: dict[int, int] = {}
        self._settle(root, 0, below, depth)
        while len(depth) < count:
            upper, lower = self._best(root, depth)
            self._load(lower, upper, share)
            self._relayed[upper] += share
            self._turn(lower, parents, below, loose)
            parents[lower] = upper
            below[upper].append(lower)
            self._settle(lower, depth[upper] + 1, below, depth)
        return Tree(root, tuple(parents))

    def _settle(self, top: int, depth: int, below: list[list[int]], known: dict[int, int]) -> None:
        """Write down how deep everybody at and below ``top`` is."""
        level = [top]
        while level:
            known.update(dict.fromkeys(level, depth))
            level, depth = [child for rank in level for child in below[rank]], depth + 1

    def _best(self, root: int, depth: dict[int, int]) -> tuple[int, int]:
        """The link that best joins one more part to those that hang on the root already.

        Shallow trees before evenly loaded ones; among equals, by turns from the root on.
        """
        count = len(self._members)
        best: tuple[tuple[int, int, int, int], tuple[int, int]] | None = None
        for lower in range(count):
            if lower in depth:
                continue
            for upper in self._near[lower]:
                if upper not in depth:
                    continue
                load = self._relayed[upper] + self._star[upper] + self._star[lower]
                load += self._extra.get((min(upper, lower), max(upper, lower)), 0)
                key = depth[upper], load, (upper - root) % count, (lower - root) % count
                if best is None or key < best[0]:
                    best = key, (upper, lower)
        if best is None:
            raise PlanError(cut_off(self._members, depth))
        return best[1]

    @staticmethod
    def _turn(lower: int, parents: list[int], below: list[list[int]], loose: set[int]) -> None:
        """Make ``lower`` the top of the loose part that it is in."""
        rank, above = lower, parents[lower]
        while rank not in loose:
            below[above].remove(rank)
            below[rank].append(above)
            rank, parents[above], above = above, rank, parents[above]
        loose.remove(rank)

    def _load(self, a: int, b: int, share: int) -> None:
        if a != b:
            link = min(a, b), max(a, b)
            self._extra[link] = self._extra.get(link, 0) + share


def cut_off(members: Sequence[str], reached: Iterable[int]) -> str:
    """What is wrong when no links join the members of these ranks and the others."""
    here = sorted(reached)
    there = sorted(set(range(len(members))) - set(here))
    one, other = (", ".join(members[rank] for rank in side) for side in (here, there))
    return f"no links join {one} and {other}: bring one back, or let one side leave"
