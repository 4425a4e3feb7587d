"""Value types of plans; they travel inside views."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property

import msgspec

Pair = tuple[str, str] | frozenset[str]
"""Two members, in either order."""


class Tree(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """A rooted tree over all members, by rank: sums go up it, results come down."""

    root: int
    parents: tuple[int, ...] = ()
    """Parent of every rank, the root's own being itself; empty: the root is everybody's."""

    def parent(self, rank: int) -> int | None:
        """Who takes in that member's sum and gives it the result; None for the root."""
        if rank == self.root:
            return None
        return self.parents[rank] if self.parents else self.root

    def children(self, rank: int, members: int) -> tuple[int, ...]:
        """Whose sums that member takes in, in member order.

        Args:
            rank: of the member.
            members: how many the tree is for.
        """
        if self.parents:
            return self._children[rank]
        return tuple(r for r in range(members) if r != rank) if rank == self.root else ()

    @cached_property
    def _children(self) -> tuple[tuple[int, ...], ...]:
        children: list[list[int]] = [[] for _ in self.parents]
        for rank, parent in enumerate(self.parents):
            if rank != self.root:
                children[parent].append(rank)
        return tuple(map(tuple, children))

    def below(self, rank: int, members: int) -> tuple[int, ...]:
        """That member and all whose sums reach it, in member order."""
        found = [rank]
        for one in found:
            found.extend(self.children(one, members))
        return tuple(sorted(found))

    def height(self, rank: int, members: int) -> int:
        """Links from that member down to the farthest whose sum reaches it."""
        height, level = -1, [rank]
        while level:
            height += 1
            level = [child for one in level for child in self.children(one, members)]
        return height

    def depth(self, rank: int) -> int:
        """Links from that member up to the root."""
        depth = 0
        while (parent := self.parent(rank)) is not None:
            rank, depth = parent, depth + 1
        return depth

    def links(self, members: int) -> list[tuple[int, int]]:
        """Every member but the root with its parent, in member order."""
        parents = self.parents or (self.root,) * members
        return [(rank, parent) for rank, parent in enumerate(parents) if rank != self.root]

    def fault(self, members: int) -> str | None:
        """Why this is no tree over so many members, None if it is one."""
        if not 0 <= self.root < members:
            return f"its root is rank {self.root} of {members}"
        if not self.parents:
            return None
        if len(self.parents) != members:
            return f"it says the parents of {len(self.parents)}, members are {members}"
        if self.parents[self.root] != self.root:
            return f"its root, rank {self.root}, has a parent"
        served = {self.root}
        for rank in range(members):
            path: list[int] = []
            while rank not in served:
                if not 0 <= rank < members:
                    return f"rank {path[-1]} has the parent {rank}"
                if rank in path:
                    return f"rank {rank} is not served: going up from it leads back to it"
                path.append(rank)
                rank = self.parents[rank]
            served.update(path)
        return None


class ReducePlan(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """How the members of a view add up their vectors.

    Every bucket is cut into one piece per tree, sized by :attr:`shares`: partial sums of piece i
    go up ``trees[i]`` and its result comes down.  Pieces are contiguous, in the order of the
    trees, and cover everything once whatever the shares are.
    """

    members: int
    quick: Tree
    """For what is small: the header of every operation, and buckets of few bytes, whole."""
    small_bytes: int
    """Longest bucket that is not cut but goes over :attr:`quick`."""
    trees: tuple[Tree, ...]
    shares: tuple[int, ...]
    """Relative size of each tree's piece."""

    @classmethod
    def direct(cls, shares: Sequence[int]) -> ReducePlan:
        """Reduce-scatter and all-gather on a full mesh, without relays.

        Args:
            shares: relative size of the piece that each member adds up, in member order; zero:
                it adds up none.
        """
        roots = [rank for rank, share in enumerate(shares) if share]
        trees = tuple(map(Tree, roots))
        return cls(len(shares), Tree(0), 0, trees, tuple(filter(None, shares)))

    @cached_property
    def mark(self) -> int:
        """Tells this plan from any other, in 64 bits."""
        digest = hashlib.blake2b(msgspec.msgpack.encode(self), digest_size=8).digest()
        return int.from_bytes(digest, "big")

    def check(self, members: Sequence[str], missing: Iterable[Pair] = ()) -> str | None:
        """The first reason why these members cannot run this plan, or None if they can.

        Args:
            members: identities, oldest first.
            missing: links that are not there; pairs of which one is no member do not matter.
        """
        if self.members != len(members):
            return f"plan is for {self.members} members, here are {len(members)}"
        if not self.trees or len(self.trees) != len(self.shares):
            return f"plan has {len(self.trees)} trees and {len(self.shares)} shares"
        if min(self.shares) <= 0 or self.small_bytes < 0:
            return "shares of a plan must be positive, and small_bytes not negative"
        dead = {way for a, b in pairs_of(members, missing) for way in ((a, b), (b, a))}
        for name, tree in (("quick", self.quick), *enumerate(self.trees)):
            if fault := tree.fault(len(members)):
                return f"tree {name} of the plan is none: {fault}"
            for link in tree.links(len(members)) if dead else ():
                if link in dead:
                    a, b = (members[rank] for rank in sorted(link))
                    return (
                        f"tree {name} of the plan uses the link between {a} and {b}, "
                        "which is not there"
                    )
        return None


def pairs_of(members: Sequence[str], pairs: Iterable[Pair]) -> list[tuple[int, int]]:
    """Ranks of these pairs, smaller first, each once and in order, without strangers."""
    ranks = {name: rank for rank, name in enumerate(members)}
    found = set()
    for pair in pairs:
        ends = [ranks[name] for name in pair if name in ranks]
        if len(ends) == 2:
            found.add((min(ends), max(ends)))
    return sorted(found)
