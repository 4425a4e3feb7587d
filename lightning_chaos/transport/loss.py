"""How much of what is sent over a connection is lost: what TCP had to send once more.

Heartbeats are too few to tell (a second's worth of them are ten packets, a gradient is thousands),
and travel by TCP, which hides what was lost.  Linux counts the segments that a connection has sent
and those that it sent again (``struct tcp_info`` in linux/tcp.h).  Some are sent again without
need, and losses that their own flood causes count too: it is the link's loss under this load.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

LEAST_SEGMENTS = 200
"""Of fewer nothing is said."""
MEMORY_S = 60.0
_TOTAL_RETRANS = 100
_DATA_SEGS_OUT = 156
_LENGTH = 160


class Segments(NamedTuple):
    """Counted since a connection began."""

    sent: int
    """With data, those sent again included."""
    again: int


def segments(connection: Any) -> Segments | None:
    """What the system has counted, None where it does not tell (other systems, no TCP).

    Args:
        connection: a socket, or what asyncio gives for one.
    """
    if not hasattr(socket, "TCP_INFO"):
        return None
    try:
        data = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LENGTH)
    except OSError:
        return None
    if len(data) < _LENGTH:
        return None
    (again,) = struct.unpack_from("=I", data, _TOTAL_RETRANS)
    (sent,) = struct.unpack_from("=I", data, _DATA_SEGS_OUT)
    return Segments(sent, again)


class LossMeter:
    """The share of late that was lost; what was counted long ago counts less and less.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._before = Segments(0, 0)
        self._sent = self._again = 0.0
        self._at = clock()

    def look(self, counted: Segments) -> None:
        """The connection has counted so many by now; if less than before, it is a new one."""
        now, before = self._clock(), self._before
        if counted.sent < before.sent or counted.again < before.again:
            before = Segments(0, 0)
        faded = math.exp((self._at - now) / MEMORY_S)
        self._sent = self._sent * faded + counted.sent - before.sent
        self._again = self._again * faded + counted.again - before.again
        self._before, self._at = counted, now

    @property
    def share(self) -> float | None:
        """0..1, None if too little was sent to say."""
        return min(1.0, self._again / self._sent) if self._sent >= LEAST_SEGMENTS else None
