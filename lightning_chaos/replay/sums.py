"""Adds up members' parts as the run did: along the trees of its plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_chaos.collective.layout import Chunk, Layout
from lightning_chaos.collective.roots import Floats, Sum
from lightning_chaos.planning.values import ReducePlan
from lightning_chaos.protocol.values import Uid


class Sums:
    """Every sum that a member of the run made in one operation.

    Parts come one after another.  One that is not added at once, because its member's sum has
    others before it, is copied: that is never so where no plan has relays.

    Args:
        members: contributors, oldest first.
        plan: by which they added up.
        buckets: (offset, length) in bytes, tiling the vector.
        result: receives the mean, shape of the vector.

    Raises:
        ValueError: the plan is not for so many members.
    """

    def __init__(
        self,
        members: tuple[Uid, ...],
        plan: ReducePlan,
        buckets: Sequence[tuple[int, int]],
        result: Floats,
    ) -> None:
        layout = Layout.of(members, plan, buckets)
        self._chunks = layout.chunks[1:]
        self._places = {uid: layout.places(uid) for uid in members}
        self._sums: dict[tuple[int, Uid], tuple[Sum, Floats]] = {}
        for chunk in self._chunks:
            for uid in members:
                place = self._places[uid][chunk.tree]
                if place.adds:
                    mean = chunk.of(result)
                    into = mean if place.parent is None else np.empty_like(mean)
                    self._sums[chunk.id, uid] = Sum(place.givers, into), into

    def add(self, uid: Uid, vector: Floats, weight: float) -> None:
        """Take in a member's part; it may change after the part after the next has come."""
        for chunk in self._chunks:
            place = self._places[uid][chunk.tree]
            to = uid if place.adds else place.parent
            assert to is not None
            piece = chunk.of(vector)
            self._give(chunk, to, uid, piece.copy() if chunk.tree.parents else piece, weight)

    def _give(self, chunk: Chunk, to: Uid, giver: Uid, piece: Floats, weight: float) -> None:
        total, into = self._sums[chunk.id, to]
        total.add(giver, piece, weight)
        if total.missing:
            return
        parent = self._places[to][chunk.tree].parent
        if parent is None:
            total.divide()
        else:
            self._give(chunk, parent, to, into, total.weight)
