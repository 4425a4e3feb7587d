"""One try of an operation under one view, and the memory that tries share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lightning_chaos.collective.actions import Landing
from lightning_chaos.collective.layout import HEADER, Chunk, Layout, Place
from lightning_chaos.collective.roots import Floats, Gather, Sum
from lightning_chaos.planning.values import Tree
from lightning_chaos.protocol.values import Uid, View


class Space:
    """Memory that operations use in turn, so that no round pays for fresh pages."""

    def __init__(self) -> None:
        self._results = [np.empty(0, np.float32), np.empty(0, np.float32)]
        self._landing = np.empty(0, np.uint8)
        self._turn = 0

    def result(self, size: int) -> Floats:
        """Room for ``size`` floats; the room given out before stays untouched."""
        self._turn ^= 1
        if len(self._results[self._turn]) < size:
            self._results[self._turn] = np.empty(size, np.float32)
        return self._results[self._turn][:size]

    def landing(self, size: int) -> npt.NDArray[np.uint8]:
        """Room for ``size`` bytes of contributions; the room given out before is reused."""
        if len(self._landing) < size:
            self._landing = np.empty(size, np.uint8)
        return self._landing[:size]


@dataclass(slots=True)
class Attempt:
    """One try of an operation: under one view, with one set of contributors."""

    me: Uid
    epoch: int
    """Frames of this attempt carry it."""
    origin: View
    """Whose members contribute, by its plan."""
    layout: Layout
    passed: dict[int, Place] = field(default_factory=dict)
    """Chunks whose result comes from a holder instead of being made anew, and on which way."""
    places: Mapping[Tree, Place] = field(init=False)
    """This member's, in each tree of the layout."""
    sums: dict[int, Sum | Gather] = field(default_factory=dict)
    """Chunks that this member adds up for others or itself, and that are not whole yet."""
    coming: dict[tuple[Uid, int], Landing] = field(default_factory=dict)
    """Payloads being received, by sender and chunk."""
    came: set[tuple[Uid, int]] = field(default_factory=set)
    """Contributions received or being received."""
    landing: npt.NDArray[np.uint8] = field(init=False)
    """Where contributions of children go."""
    landed: int = 0
    """Bytes of :attr:`landing` given out."""

    def __post_init__(self) -> None:
        self.places = self.layout.places(self.me)

    def prepare(self, result: Floats | None, space: Space) -> None:
        """Take memory for the sums that are made here.

        Args:
            result: where they are made: a chunk's result can come only when its root has had
                this member's sum.
            space: for what children contribute.
        """
        layout, size = self.layout, 0
        for chunk in layout.chunks:
            place = self.places[chunk.tree]
            if chunk.id in self.passed or not place.adds:
                continue
            size += len(place.children) * chunk.length
            if chunk.id == HEADER:
                below = {uid: layout.below(chunk, uid) for uid in place.children}
                self.sums[HEADER] = Gather({self.me: (layout.members.index(self.me),)} | below)
            else:
                self.sums[chunk.id] = Sum(place.givers, chunk.of(result))
        self.landing = space.landing(size)

    def place(self, chunk: Chunk) -> Place:
        """Where this member stands on the way of that chunk's result."""
        return self.passed.get(chunk.id) or self.places[chunk.tree]

    def void(self) -> None:
        """Let go of payloads half received: the rest of them must not be written here."""
        for landing in self.coming.values():
            landing.memory = None
        self.coming.clear()
