"""One data connection: greeting, then frames, payloads received straight to where they belong."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from lightning_chaos.collective.actions import Landing, Verdict
from lightning_chaos.collective.frames import (
    FRAME_BYTES,
    GREETING_LENGTH,
    Frame,
    Greeting,
    greeting_length,
    pack_greeting,
    unpack,
    unpack_greeting,
)
from lightning_chaos.collective.outflow import Outflow
from lightning_chaos.collective.owners import LinkOwner
from lightning_chaos.errors import WireError
from lightning_chaos.protocol.values import Uid
from lightning_chaos.transport.meter import LinkMeter
from lightning_chaos.transport.pacer import Pacer

GREETING_TIMEOUT_S = 5.0
METERED_BYTES = 64 << 10
"""Shorter payloads say nothing of the link's rate: they may all be here before one looks."""

_log = logging.getLogger(__name__)


class Link(asyncio.BufferedProtocol):
    """A connection to another worker; reads in three steps: greeting, header, payload.

    Args:
        owner: see there.
        scratch: where unwanted bytes go; shared by all links of a loop.
        greeting: said as soon as the connection is up, None on the accepting side.
    """

    def __init__(
        self, owner: LinkOwner, scratch: memoryview, greeting: Greeting | None = None
    ) -> None:
        self.uid: Uid = ""
        """Who is at the other end, known from its greeting on."""
        self.meant_for: Uid = greeting.to if greeting else ""
        """Whom this side dialled, '' if it was dialled."""
        self.over: asyncio.Event = asyncio.Event()
        """Set when the connection is gone."""
        self._owner = owner
        self._scratch = scratch
        self._greeting = greeting
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reason = ""
        # Receiving: `_target` is what is still to be filled of the current step.
        self._buffer = memoryview(bytearray(GREETING_LENGTH.size))
        self._target = self._buffer
        self._step = self._greeting_length_read
        self._frame: Frame | None = None
        self._landing: Landing | None = None
        self._left = 0
        self._paused = False
        self._meter: LinkMeter | None = None
        # Sending.
        self._outflow: Outflow | None = None
        self._parting = ""
        self._linger: asyncio.TimerHandle | None = None

    # ---- life --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is up (called by asyncio)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._outflow = Outflow(transport, self._emptied)
        # Pause as soon as the socket does not take all: at most one piece is ever copied.
        transport.set_write_buffer_limits(high=0)
        self._timer = asyncio.get_running_loop().call_later(
            GREETING_TIMEOUT_S, self.abort, "no greeting came in time"
        )
        if self._greeting is not None:
            self.greet(self._greeting)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone (called by asyncio, once)."""
        self._stop()
        if self._linger is not None:
            self._linger.cancel()
        self._landing = None
        self.over.set()
        reason = self._reason or (str(exc) if exc else "closed by the other side")
        self._owner.ended(self, reason)

    def close(self, reason: str) -> None:
        """Close once what the transport holds is sent; frames still queued are forgotten."""
        self._end(reason)
        if self._transport is not None:
            self._transport.close()

    def hang_up(self, reason: str, linger_s: float) -> None:
        """Send what is queued, then close; after ``linger_s`` seconds close anyway."""
        self._parting = reason
        self._linger = asyncio.get_running_loop().call_later(linger_s, self.abort, reason)
        self.pump()

    def abort(self, reason: str) -> None:
        """Close at once, whether the other side reads or not."""
        self._end(reason)
        if self._transport is not None:
            self._transport.abort()

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._stop()

    def _stop(self) -> None:
        self._stop_timer()
        if self._outflow is not None:
            self._outflow.stop()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def up(self) -> bool:
        """Connected, and not yet gone."""
        return self._transport is not None and not self.over.is_set()

    @property
    def closing(self) -> bool:
        """Closed by this side or found broken."""
        return self.over.is_set() or self._transport is None or self._transport.is_closing()

    @property
    def socket(self) -> Any:
        """For what the system tells of it; None while there is none."""
        return self._transport.get_extra_info("socket") if self._transport is not None else None

    def greet(self, greeting: Greeting) -> None:
        """Say who we are."""
        if self._transport is not None and not self.closing:
            self._transport.write(pack_greeting(greeting))

    # ---- receiving ---------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go (called by asyncio right before it reads)."""
        if self._landing is not None and self._landing.memory is None:
            # Frozen meanwhile: the rest must not be written into a new attempt.
            self._landing = None
            self._left = len(self._target)
            self._target = self._scratch[: self._left]
        return self._target

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came (called by asyncio right after it read)."""
        self._target = self._target[nbytes:]
        if self._meter is not None and self._frame is not None:
            self._meter.received(nbytes)
        if self._frame is not None and self._landing is None:
            self._left -= nbytes
            if not len(self._target):
                self._target = self._scratch[: self._left]
        if len(self._target):
            return
        try:
            self._step()
        except WireError as error:
            _log.warning("data link to %s: %s", self.uid or "a stranger", error)
            self.abort(str(error))

    def resume(self) -> None:
        """Ask again where the frame left unread may go."""
        if self._paused and not self.closing:
            self._place()

    def _expect(self, size: int) -> None:
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        self._target = self._buffer[:size]

    def _greeting_length_read(self) -> None:
        self._expect(greeting_length(self._buffer[: GREETING_LENGTH.size]))
        self._step = self._greeting_read
        self._left = len(self._target)

    def _greeting_read(self) -> None:
        greeting = unpack_greeting(self._buffer[: self._left])
        self._stop_timer()
        self.uid = greeting.sender
        self._step = self._header_read
        self._expect(FRAME_BYTES)
        if not self._owner.greeted(self, greeting):
            self.close(self._reason or "not wanted")

    def _header_read(self) -> None:
        self._frame = unpack(self._buffer[:FRAME_BYTES])
        self._place()

    def _place(self) -> None:
        frame = self._frame
        assert frame is not None
        assert self._transport is not None
        where = self._owner.place(self.uid, frame)
        if self.closing:
            return
        if where is Verdict.PAUSE:
            if not self._paused:
                self._paused = True
                self._transport.pause_reading()
            return
        self._step = self._payload_read
        if isinstance(where, Landing) and where.memory is not None:
            self._landing, self._target = where, where.memory
        else:
            self._landing, self._left = None, frame.length
            self._target = self._scratch[: self._left]
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        elif self._meter is not None and frame.length >= METERED_BYTES:
            self._meter.begin()  # its sender has all of it at hand
        if not len(self._target):
            self._payload_read()

    def _payload_read(self) -> None:
        frame, landing = self._frame, self._landing
        assert frame is not None
        self._frame = self._landing = None
        if self._meter is not None:
            self._meter.end()
        self._step = self._header_read
        self._expect(FRAME_BYTES)
        if landing is not None:
            self._owner.complete(self.uid, frame, landing)

    def meter(self, meter: LinkMeter) -> None:
        """Measure with this how fast payloads come."""
        self._meter = meter

    # ---- sending -----------------------------------------------------------------------------

    def serve(self, queue: deque[tuple[Frame, memoryview]], pacer: Pacer) -> None:
        """Send what is in the queue, now and whenever :meth:`pump` is called."""
        assert self._outflow is not None
        self._outflow.serve(queue, pacer)

    def pump(self) -> None:
        """Send as much as socket and pacer take."""
        if self._outflow is not None:
            self._outflow.pump()

    def pause_writing(self) -> None:
        """The socket is full (called by asyncio)."""
        assert self._outflow is not None
        self._outflow.pause()

    def resume_writing(self) -> None:
        """The socket has taken all (called by asyncio)."""
        assert self._outflow is not None
        self._outflow.resume()

    def _emptied(self) -> None:
        if self._parting:
            self.close(self._parting)
