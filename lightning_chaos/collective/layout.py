"""How one operation is cut into chunks, and who reduces which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

import msgspec

from lightning_chaos.collective.roots import Floats
from lightning_chaos.planning.values import ReducePlan, Tree
from lightning_chaos.protocol.values import Uid

HEADER = 0
"""Chunk 0 of every operation: one blob per member, gathered at its root, returned to all."""

FLOAT_BYTES = 4
MOST_KEPT = 16
"""So many layouts are remembered: of some kinds of operations, under this view and the last one.
That of a large model takes megabytes."""
MOST_PLACES = 256
"""Of so many members and plans it is remembered where they stand: a simulation has many."""


class Chunk(msgspec.Struct, frozen=True):
    """The unit of a reduction: one piece of the flat vector with one root."""

    id: int
    offset: int
    """First byte in the flat float32 vector; 0 for the header."""
    length: int
    """Bytes in the flat vector; 0 for the header, whose payloads have lengths of their own."""
    root: Uid
    """Divides the sum of all: where the result is made."""
    tree: Tree
    """Over the ranks of the members: sums go up it to :attr:`root`, the result comes down."""
    bucket: int | None = None
    """Which bucket of the vector it is a piece of; None for the header."""

    def of(self, vector: Floats | None) -> Floats:
        """Its piece of a flat vector; of an operation without one there are no such chunks."""
        assert vector is not None
        return vector[self.offset // FLOAT_BYTES : (self.offset + self.length) // FLOAT_BYTES]


class Place(msgspec.Struct, frozen=True):
    """A member's neighbours on the way of a chunk."""

    parent: Uid | None
    """From whom it gets the result; None if it makes or holds that itself."""
    children: tuple[Uid, ...]
    """To whom it sends the result, in member order."""
    givers: tuple[Uid, ...] = ()
    """Itself and its children, in member order: what is added up here.  None for a chunk whose
    result there is already."""

    @property
    def adds(self) -> bool:
        """Something is added up here: a leaf gives its own vector as it is."""
        return bool(self.givers) and (bool(self.children) or self.parent is None)


class Layout(msgspec.Struct, frozen=True):
    """All chunks of one operation under one set of contributors."""

    members: tuple[Uid, ...]
    """Contributors, oldest first: the order of every sum."""
    plan: ReducePlan
    chunks: tuple[Chunk, ...]
    """By id: the header, then the pieces of every bucket in order."""
    buckets: tuple[tuple[Chunk, ...], ...]
    """The pieces of each bucket."""

    @classmethod
    def of(
        cls, members: tuple[Uid, ...], plan: ReducePlan, buckets: Sequence[tuple[int, int]]
    ) -> Layout:
        """Cut every bucket by the plan's shares.

        The same at every member that has the same view and the same buckets.  Rounds of a view
        ask for it again and again, so it is remembered.

        Args:
            members: identities, oldest first.
            plan: of the view.
            buckets: (offset, length) in bytes of each bucket in the flat vector.

        Raises:
            ValueError: the plan is not for these members, or a bucket is not whole floats.
        """
        return _layout(members, plan, tuple(buckets))

    def places(self, me: Uid) -> Mapping[Tree, Place]:
        """Where that member stands in each tree of the plan."""
        return _places(self.members, self.plan, me)

    def below(self, chunk: Chunk, uid: Uid) -> tuple[int, ...]:
        """Ranks of those whose contributions are in that member's sum, in order."""
        return chunk.tree.below(self.members.index(uid), len(self.members))

    def patience(self, chunk: Chunk, uid: Uid) -> int:
        """How many workers may keep the result of a chunk from that member, one after the other."""
        rank, count = self.members.index(uid), len(self.members)
        return chunk.tree.depth(rank) + chunk.tree.height(chunk.tree.root, count)

    def height(self, chunk: Chunk, uid: Uid) -> int:
        """Links down to the farthest member whose contribution is in that member's sum."""
        return chunk.tree.height(self.members.index(uid), len(self.members))


@lru_cache(maxsize=MOST_KEPT)
def _layout(
    members: tuple[Uid, ...], plan: ReducePlan, buckets: tuple[tuple[int, int], ...]
) -> Layout:
    problem = plan.check(members)
    if problem:
        raise ValueError(problem)
    chunks = [Chunk(HEADER, 0, 0, members[plan.quick.root], plan.quick)]
    first = []
    for bucket, (offset, length) in enumerate(buckets):
        if offset < 0 or length < 0 or offset % FLOAT_BYTES or length % FLOAT_BYTES:
            raise ValueError(f"bucket of {length} bytes at {offset} is not whole floats")
        first.append(len(chunks))
        small = length <= plan.small_bytes
        trees, shares = ((plan.quick,), (1,)) if small else (plan.trees, plan.shares)
        for tree, (begin, end) in zip(trees, _cut(length, shares), strict=True):
            if end > begin:
                place = offset + begin, end - begin
                chunks.append(Chunk(len(chunks), *place, members[tree.root], tree, bucket))
    pieces = (tuple(chunks[i:j]) for i, j in pairwise([*first, len(chunks)]))
    return Layout(members, plan, tuple(chunks), tuple(pieces))


@lru_cache(maxsize=MOST_PLACES)
def _places(members: tuple[Uid, ...], plan: ReducePlan, me: Uid) -> Mapping[Tree, Place]:
    rank = members.index(me)
    places = {}
    for tree in {plan.quick, *plan.trees}:
        parent = tree.parent(rank)
        children = tree.children(rank, len(members))
        places[tree] = Place(
            None if parent is None else members[parent],
            tuple(members[child] for child in children),
            tuple(members[one] for one in sorted((rank, *children))),
        )
    return places


def _cut(length: int, shares: tuple[int, ...]) -> list[tuple[int, int]]:
    """Half-open byte ranges, one per share, that tile ``length`` bytes on float boundaries."""
    floats, total = length // FLOAT_BYTES, sum(shares)
    bounds = [floats * share // total * FLOAT_BYTES for share in accumulate(shares, initial=0)]
    return list(pairwise(bounds))


def check_tiling(buckets: Sequence[tuple[int, int]], size: int) -> None:
    """Make sure that the buckets cover a vector of ``size`` bytes in order, without a hole.

    Raises:
        ValueError: they do not.
    """
    at = 0
    for offset, length in buckets:
        if offset != at:
            raise ValueError(f"bucket begins at byte {offset}, the one before ends at {at}")
        at += length
    if at != size:
        raise ValueError(f"buckets cover {at} bytes of a vector of {size}")
