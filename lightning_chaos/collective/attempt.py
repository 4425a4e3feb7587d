"""One try of an operation under one view, and the memory that tries share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lightning_chaos.collective.actions import Landing
from lightning_chaos.collective.layout import Layout
from lightning_chaos.collective.roots import Floats, Gather, Sum
from lightning_chaos.protocol.values import Uid


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

    epoch: int
    """Frames of this attempt carry it."""
    origin: int
    """View whose members contribute."""
    layout: Layout
    landing: npt.NDArray[np.uint8]
    """Where contributions to chunks rooted here go."""
    passed: dict[int, Uid] = field(default_factory=dict)
    """Chunks whose result comes from a holder instead of being made anew."""
    roots: dict[int, Sum | Gather] = field(default_factory=dict)
    """Chunks rooted here and not whole yet."""
    coming: dict[tuple[Uid, int], Landing] = field(default_factory=dict)
    """Payloads being received, by sender and chunk."""
    came: set[tuple[Uid, int]] = field(default_factory=set)
    """Contributions received or being received."""
    landed: int = 0
    """Bytes of :attr:`landing` given out."""

    def void(self) -> None:
        """Let go of payloads half received: the rest of them must not be written here."""
        for landing in self.coming.values():
            landing.memory = None
        self.coming.clear()
