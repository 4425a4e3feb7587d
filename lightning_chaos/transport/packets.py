"""A stream socket that shows its packets: what is written apart, and when what is read had come."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
import termios
import time
from collections import deque
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SO_TIMESTAMPNS = 35
"""Of Linux, and the type of the message that it adds to a read; Python has no name for it."""
_STAMPED_READ_BYTES = 1448
"""Payload of a packet of Ethernet: reads end where packets do, so no bytes get another's stamp."""
_TIMESPEC = struct.Struct("@ll")
_COUNT = struct.Struct("@i")


class PacketSocket(socket.socket):
    """Takes over a connected stream socket; is one itself for everything else.

    Event loops write by :meth:`send` and read by :meth:`recv_into`, so it is there that it acts.
    Linux stamps packets as they come, also those of TCP, and tells with a read the stamp of the
    last packet that the read took bytes of (since 4.14), so as long as they are wanted reads are
    small, and dear; packets that wait unread may be joined, with the last one's stamp
    (see :meth:`_no_later`).
    ``MSG_EOR`` keeps it from joining what is written with what is written later (since 4.7).

    Args:
        sock: taken over; of no use afterwards.
    """

    def __init__(self, sock: socket.socket) -> None:
        timeout_s = sock.gettimeout()
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.settimeout(timeout_s)
        self._stamped = self._stamping = False
        self._stamps_ahead_s = 0.0
        """By how much the clock of stamps is ahead of the monotonic one."""
        self.stamp_t: float | None = None
        """When the last of what was read last had come, on the monotonic clock, seconds; None if
        that is not known."""
        self._read_bytes = 0
        """Since stamps were wanted."""
        self._there: deque[tuple[int, float]] = deque()
        """So many of these bytes were there at that time, both rising."""
        self.apart = False
        """What is written travels in packets of its own, and shares none with what follows."""
        if sys.platform == "linux":
            # From the start: the kernel takes a while to begin, and stamps cost next to nothing.
            with contextlib.suppress(OSError):  # a sandbox may have none
                self.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
                self._stamped = True

    def start_stamps(self) -> None:
        """Read packet by packet from now on, each with its stamp, if there are stamps."""
        self._stamping = self._stamped
        self._read_bytes = 0
        self._there.clear()
        self._stamps_ahead_s = time.time() - time.monotonic()  # the clock of stamps is set at times

    def stop_stamps(self) -> None:
        """Read as much as there is from now on, and cheaply."""
        self._stamping, self.stamp_t = False, None

    @override
    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        if not self._stamping:
            return super().recv_into(buffer, nbytes, flags)
        self._look()
        room = memoryview(buffer)[: min(nbytes or _STAMPED_READ_BYTES, _STAMPED_READ_BYTES)]
        read, told, _, _ = self.recvmsg_into([room], socket.CMSG_SPACE(_TIMESPEC.size), flags)
        self._read_bytes += read
        self.stamp_t = None
        for level, kind, data in told:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack(data)
                self.stamp_t = self._no_later(seconds + nanoseconds / 1e9 - self._stamps_ahead_s)
        return read

    def _look(self) -> None:
        """Note how much is there by now."""
        (waiting,) = _COUNT.unpack(fcntl.ioctl(self, termios.FIONREAD, bytes(_COUNT.size)))
        there = self._read_bytes + waiting
        if not self._there or there > self._there[-1][0]:
            self._there.append((there, time.monotonic()))

    def _no_later(self, stamp_t: float) -> float:
        """When what was read last had come, at the latest: it was seen to be there.

        A packet that is joined to others gives them its stamp, though some of these were read
        before: then what is left of them seems to have come with it.
        """
        while self._there and self._there[0][0] < self._read_bytes:
            self._there.popleft()
        return min(stamp_t, self._there[0][1]) if self._there else stamp_t

    @override
    def send(self, data: Buffer, flags: int = 0) -> int:
        return super().send(data, flags | socket.MSG_EOR if self.apart else flags)
