"""What one data connection sends: the frames of a queue, as fast as socket and pacer take them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from lightning_chaos.collective.frames import Frame, FrameKind, pack
from lightning_chaos.transport.pacer import Pacer
from lightning_chaos.transport.packets import PacketSocket
from lightning_chaos.transport.train import TRAIN_WRITE_BYTES

PIECE_BYTES = 256 << 10
"""Handed to the socket at once.  What it does not take at once asyncio keeps: a copy, or from
Python 3.12 on the piece itself, which holds its value until it is received."""
PACED_PIECE_BYTES = 32 << 10
SHORTEST_WAIT_S = 0.0005


class Outflow:
    """Hands frames to a transport piece by piece.

    Args:
        transport: of a connection that is up.
        packets: its socket, if that can send a train apart.
        on_empty: called when the transport has all that was queued.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        packets: PacketSocket | None,
        on_empty: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._packets = packets
        self._on_empty = on_empty
        self._pacer: Pacer | None = None
        self._queue: deque[tuple[Frame, memoryview]] | None = None
        self._sending = memoryview(b"")
        """What is still to go of the frame begun."""
        self._apart = False
        """That frame is a train."""
        self._full = False
        self._timer: asyncio.TimerHandle | None = None
        """Runs while the pacer holds a piece back."""

    def serve(self, queue: deque[tuple[Frame, memoryview]], pacer: Pacer) -> None:
        """Send what is in the queue, now and whenever :meth:`pump` is called."""
        self._queue, self._pacer = queue, pacer
        self.pump()

    def pump(self) -> None:
        """Send as much as socket and pacer take."""
        while not self._full and self._timer is None and not self._transport.is_closing():
            if len(self._sending):
                self._write(b"", self._sending)
            elif self._queue:
                frame, payload = self._queue.popleft()
                self._apart = frame.kind is FrameKind.TRAIN
                self._write(pack(frame), payload)
            else:
                self._on_empty()
                return

    def pause(self) -> None:
        """The socket is full."""
        self._full = True

    def resume(self) -> None:
        """The socket has taken all."""
        self._full = False
        self.pump()

    def stop(self) -> None:
        """Send nothing more; frames still queued are forgotten."""
        self._queue = None
        self._sending = memoryview(b"")
        if self._timer is not None:
            self._timer.cancel()

    def _write(self, head: bytes, payload: memoryview) -> None:
        assert self._pacer is not None
        most = PACED_PIECE_BYTES if self._pacer.limited else PIECE_BYTES
        piece = payload[: TRAIN_WRITE_BYTES if self._apart else most]
        self._sending = payload[len(piece) :]
        wait_s = self._pacer.reserve(len(head) + len(piece))
        if wait_s > SHORTEST_WAIT_S:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(wait_s, self._write_late, head, piece)
        else:
            self._put(head, piece)

    def _write_late(self, head: bytes, piece: memoryview) -> None:
        self._timer = None
        if not self._transport.is_closing():
            self._put(head, piece)
            self.pump()

    def _put(self, head: bytes, piece: memoryview) -> None:
        if self._packets is not None:
            self._packets.apart = self._apart
        if head and len(piece) <= PACED_PIECE_BYTES and not self._apart:
            self._transport.write(head + piece)
            return
        if head:
            self._transport.write(head)
        self._transport.write(piece)
