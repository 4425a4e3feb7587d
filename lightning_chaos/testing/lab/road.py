"""One direction of a link: all connections from one node to another share it."""

from __future__ import annotations

import asyncio
import math
import random

from lightning_chaos.testing.lab.conditions import Cut, Shape

# A busy machine is late with what waits to be sent; so much may be caught up.
_CATCH_UP_S = 0.004
# A wait notices within this time that conditions have changed.
_SLICE_S = 0.05
_PIECE_S = 0.002
_LEAST_PIECE_BYTES = 1 << 10
_MOST_PIECE_BYTES = 32 << 10
FINE_PIECE_S = 0.0002
"""Python handles no piece faster."""
_LEAST_FINE_BYTES = 4 << 10
_MOST_FINE_BYTES = 16 << 10


class Road:
    """Says when a piece that leaves one node arrives at the other.

    Pieces are sent one after another, connections in turn, so that none starves another: there
    is no queue in which a small message waits behind a big one's megabytes.

    Args:
        rng: draws the jitter.
    """

    def __init__(self, rng: random.Random) -> None:
        self._clock = asyncio.get_running_loop().time
        self._rng = rng
        self._turn = asyncio.Lock()
        self._open = asyncio.Event()
        self._open.set()
        self.shape = Shape()
        self.cut = Cut.NONE
        self.carried_bytes = 0
        """Bytes that arrived."""
        self._free_at = self._clock()
        """When what was sent so far will have left."""

    def change(self, shape: Shape, cut: Cut) -> None:
        """New conditions, from now on."""
        if shape != self.shape:
            self.shape = shape
            self._free_at = self._clock()
        self.cut = cut
        if cut is Cut.SILENT:
            self._open.clear()
        else:
            self._open.set()

    @property
    def silent(self) -> bool:
        """A black hole."""
        return not self._open.is_set()

    @property
    def piece_bytes(self) -> int:
        """How much to send at once: what takes about two milliseconds."""
        rate = self.shape.bytes_per_s
        if rate is None:
            return _MOST_PIECE_BYTES
        return min(max(int(rate * _PIECE_S), _LEAST_PIECE_BYTES), _MOST_PIECE_BYTES)

    @property
    def fine_piece_bytes(self) -> int:
        """The same for who looks at how bytes are spaced: a fifth of a millisecond's, if not more
        than a quarter of a packet train."""
        fine_bytes = (self.shape.bytes_per_s or math.inf) * FINE_PIECE_S
        fine_bytes = min(max(fine_bytes, _LEAST_FINE_BYTES), _MOST_FINE_BYTES)
        return min(int(fine_bytes), self.piece_bytes)

    def idled(self) -> None:
        """Nobody had anything to send until now, or else somebody is at it."""
        if not self._turn.locked():
            self._free_at = max(self._free_at, self._clock())

    async def send(self, size: int) -> float:
        """Wait for the turn of a piece and send it; returns the time at which it arrives."""
        async with self._turn:
            shape, begin = self.shape, self._clock()
            left = max(self._free_at, begin - _CATCH_UP_S) + self._seconds_for(size)
            self._free_at = left
            while shape is self.shape and (wait := left - self._clock()) > 0:
                await asyncio.sleep(min(wait, _SLICE_S))
            if shape is not self.shape:
                left = self._clock() + self._seconds_for(size)
            return max(left, begin) + self._trip_s()

    async def arrive(self, due: float) -> None:
        """Wait until a piece that was sent is there; if the road was cut, until it is sent anew."""
        if (wait := due - self._clock()) > 0:
            await asyncio.sleep(wait)
        if self.silent:
            await self.travel()

    async def travel(self) -> None:
        """Carry something of no size from one end to the other."""
        while True:
            await self._open.wait()
            await asyncio.sleep(self._trip_s())
            if not self.silent:
                return

    async def opened(self) -> None:
        """Wait until the road is no black hole."""
        await self._open.wait()

    def _trip_s(self) -> float:
        shape = self.shape
        return (shape.delay_ms + self._rng.uniform(-1, 1) * shape.jitter_ms) / 1e3

    def _seconds_for(self, size: int) -> float:
        return size / (self.shape.bytes_per_s or math.inf)
