"""Reduce plans from what is known at once: which links are there.

All links and members count as equal.  With every link there, each member adds up an equal share,
straight from and to everybody (direct reduce-scatter and all-gather): no plan is faster, since a
vector of S bytes then loads each of the n(n-1)/2 links by 2S/n each way, and any reduction must
move 2(n-1)S bytes in all.  Where a link is missing, members in between relay partial sums and
results; this is a heuristic, spread evenly (:mod:`lightning_chaos.planning.reduce` is exact).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property

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
        self, plan: ReducePlan, members: Sequence[str], dead: Iterable[tuple[int, int]]
    ) -> None:
        self._plan, self._members = plan, members
        self._dead: dict[int, set[int]] = {}
        for a, b in dead:
            self._dead.setdefault(a, set()).add(b)
            self._dead.setdefault(b, set()).add(a)
        self._relayed = [0] * len(members)

    def mend(self, tree: Tree, share: int) -> Tree:
        """The tree without dead links; itself if it has none."""
        count, root = len(self._members), tree.root
        if not self._hurt(tree):
            return tree
        parents = list(tree.parents) or [root] * count
        below: list[list[int]] = [[] for _ in range(count)]
        loose = set()
        for rank, parent in enumerate(parents):
            if parent in self._dead.get(rank, ()):
                loose.add(rank)
            elif rank != root:
                below[parent].append(rank)
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

    def _hurt(self, tree: Tree) -> bool:
        """It has a dead link."""
        if not tree.parents:
            return tree.root in self._dead
        return any(tree.parents[rank] in others for rank, others in self._dead.items())

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
        left = set(range(count)).difference(depth)
        for _, level in itertools.groupby(sorted(depth, key=depth.__getitem__), depth.__getitem__):
            offers = [
                (self._loaded(upper, lower), (upper - root) % count, (lower - root) % count)
                for upper in level
                for lower in left.difference(self._dead.get(upper, ()))
            ]
            if offers:
                _, upper, lower = min(offers)
                return (upper + root) % count, (lower + root) % count
        raise PlanError(cut_off(self._members, depth))

    @staticmethod
    def _turn(lower: int, parents: list[int], below: list[list[int]], loose: set[int]) -> None:
        """Make ``lower`` the top of the loose part that it is in."""
        rank, above = lower, parents[lower]
        while rank not in loose:
            below[above].remove(rank)
            below[rank].append(above)
            rank, parents[above], above = above, rank, parents[above]
        loose.remove(rank)

    def _loaded(self, upper: int, lower: int) -> int:
        """What that link carries already, and what its upper end relays besides."""
        star, extra = self._loads
        count = len(self._members)
        both = extra[upper * count + lower] + extra[lower * count + upper]
        return self._relayed[upper] + star[upper] + star[lower] + both

    def _load(self, rank: int, parent: int, share: int) -> None:
        self._loads[1][rank * len(self._members) + parent] += share

    @cached_property
    def _loads(self) -> tuple[list[int], list[int]]:
        """By the trees of the plan: over each link of a root's star, and over single ways.

        A lost link that no tree uses needs none of this.
        """
        count = len(self._members)
        star, extra = [0] * count, [0] * count**2
        for tree, share in zip(self._plan.trees, self._plan.shares, strict=True):
            if not tree.parents:
                star[tree.root] += share
                continue
            place = 0
            for parent in tree.parents:  # a root's own way to itself is nobody's link
                extra[place + parent] += share
                place += count
        return star, extra


def cut_off(members: Sequence[str], reached: Iterable[int]) -> str:
    """What is wrong when no links join the members of these ranks and the others."""
    here = sorted(reached)
    there = sorted(set(range(len(members))) - set(here))
    one, other = (", ".join(members[rank] for rank in side) for side in (here, there))
    return f"no links join {one} and {other}: bring one back, or let one side leave"
