"""One connection through the relay: two streams of bytes, each with what it holds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct

from lightning_chaos.testing.lab.conditions import bandwidth_delay_bytes
from lightning_chaos.testing.lab.road import FINE_PIECE_S, Road
from lightning_chaos.transport.dial import send_at_once

KERNEL_BYTES = 64 << 10
"""Receive buffer of the kernel on the relay's side, beside what the relay itself holds."""
# The kernel doubles what it is asked for.
_BUFFERS = ((socket.SO_RCVBUF, KERNEL_BYTES // 2), (socket.SO_SNDBUF, KERNEL_BYTES // 2))
_SLICE_S = 0.05
_IN_A_ROW = 4
"""Pieces that one stream gives before others have a turn."""
FINE_BYTES = 128 << 10
"""A connection's first bytes are carried in fine pieces, if the road has a rate: packet trains that
are to show it are among them."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ConnectionWasReset(Exception):
    """One end is gone, or the network says so: both ends are told."""


def bound_buffers(sock: socket.socket) -> None:
    """Keep the kernel from holding more than :data:`KERNEL_BYTES`; before it is connected."""
    for option, size in _BUFFERS:
        sock.setsockopt(socket.SOL_SOCKET, option, size)


class Stream:
    """Carries one direction of a connection.

    Holds at most one bandwidth-delay product.  Reset and end of the source travel like bytes,
    after those that were sent before them.

    Args:
        source: where bytes are taken.
        sink: where they are given.
        road: what carries them.
        back: what would carry their acknowledgements: while it is a black hole, no more than a
            bandwidth-delay product is carried.
    """

    def __init__(self, source: socket.socket, sink: socket.socket, road: Road, back: Road) -> None:
        self._source, self._sink, self._road, self._back = source, sink, road, back
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()
        self._held = 0
        self._given = asyncio.Event()
        self._unacknowledged = 0
        self._taken = 0
        self._at_once = 0
        self._short_t = 0.0
        """When a read brought less than was asked for."""

    async def take(self) -> None:
        """Take bytes from the source until it ends."""
        while data := await self._read():
            while data:  # the road may have become slower since they were asked for
                size = self._piece_bytes
                self._taken += size
                await self._send(data[:size])
                data = data[size:]
        await self._send(data)

    async def give(self) -> None:
        """Give them to the sink when they arrive.

        Raises:
            ConnectionWasReset: the source was reset, or the sink is.
        """
        while True:
            due, piece = await self._pieces.get()
            await self._acknowledge(len(piece or b""))
            await self._road.arrive(due)
            if piece is None:
                raise ConnectionWasReset
            try:
                if not piece:
                    self._sink.shutdown(socket.SHUT_WR)
                    return
                await self._loop.sock_sendall(self._sink, piece)
            except OSError:
                await self._back.travel()
                raise ConnectionWasReset from None
            self._count(len(piece))

    @property
    def _fine(self) -> bool:
        return self._taken < FINE_BYTES and self._road.shape.bytes_per_s is not None

    @property
    def _piece_bytes(self) -> int:
        return self._road.fine_piece_bytes if self._fine else self._road.piece_bytes

    @property
    def _most(self) -> int:
        return bandwidth_delay_bytes(self._road.shape, self._back.shape)

    async def _read(self) -> bytes | None:
        """Some bytes, b'' at the end, None for a reset."""
        try:
            await self._room()
            await self._gather()
            size = self._piece_bytes
            try:
                data = self._source.recv(size)
            except BlockingIOError:
                data = await self._loop.sock_recv(self._source, size)
                self._road.idled()
        except OSError:
            return None
        if len(data) < size:
            self._short_t = self._loop.time()
        self._held += len(data)
        return data

    async def _send(self, piece: bytes | None) -> None:
        due = await self._road.send(len(piece or b""))
        if piece and due <= self._loop.time() and not (piece := self._give_at_once(piece)):
            self._at_once += 1
            if self._at_once % _IN_A_ROW == 0:
                await asyncio.sleep(0)  # others' turn
            return
        self._pieces.put_nowait((due, piece))

    def _give_at_once(self, piece: bytes) -> bytes:
        """Give what has no way to go, if nothing is before it; returns what could not be given."""
        if self._held > len(piece) or self._road.silent or self._back.silent:
            return piece
        try:
            given = self._sink.send(piece)
        except OSError:  # full, or an error that :meth:`give` will meet
            return piece
        self._unacknowledged = 0
        self._count(given)
        return piece[given:]

    def _count(self, given: int) -> None:
        self._road.carried_bytes += given
        self._held -= given
        self._given.set()

    async def _room(self) -> None:
        """Wait until one more piece may be held."""
        while self._held + self._piece_bytes > self._most:
            self._given.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SLICE_S):
                    await self._given.wait()
            # Nobody reads the source now: a reset would go unnoticed.
            if code := self._source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))

    async def _gather(self) -> None:
        """Who writes many small pieces is given time to, or each of them would be carried alone."""
        wait = self._short_t + FINE_PIECE_S - self._loop.time()
        if self._fine and wait > 0:
            await asyncio.sleep(wait)

    async def _acknowledge(self, size: int) -> None:
        if not self._back.silent:
            self._unacknowledged = 0
        elif self._unacknowledged + size > self._most:
            await self._back.opened()
            self._unacknowledged = 0
        self._unacknowledged += size


async def carry(near: socket.socket, far: socket.socket, there: Road, back: Road) -> None:
    """Carry a connection until both ends have ended; both sockets are closed then.

    Whatever else ends it (a reset, this task's cancellation) resets both.

    Args:
        near: connection to the node that called.
        far: connection to the node that was called.
        there: from the one that called to the other.
        back: from the other.
    """
    ended = False
    for sock in (near, far):
        send_at_once(sock)
    try:
        async with asyncio.TaskGroup() as group:
            for stream in (Stream(near, far, there, back), Stream(far, near, back, there)):
                group.create_task(stream.take())
                group.create_task(stream.give())
        ended = True
    except* ConnectionWasReset:
        pass
    finally:
        for sock in (near, far):
            if not ended:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            sock.close()
