"""Control connections to other peers: held, dialled again, reported.

To the state machine a link to an incarnation is up or down.  Underneath there may be two
connections (both sides dialled at once), and a connection that breaks is dialled once more
before the link counts as down: a reset is evidence about a connection, not about a node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Coroutine

from lightning_chaos.errors import AddressError, ChaosError, WireError
from lightning_chaos.peer.caller import Caller, Connection, in_words
from lightning_chaos.peer.machine import process_gone
from lightning_chaos.protocol.events import Event, Heard, Linked, Unlinked
from lightning_chaos.protocol.messages import AnyMessage, Message, Status, decode, encode
from lightning_chaos.protocol.values import Member, Uid
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.channel import Channel

_RETRY_S = 0.05
_GONE_POLL_S = 0.01
_MOST_PATIENCE = 4
"""A member that was never reached is given up to so many timeouts to answer."""
_MOST_UNSENT = 64
"""So many messages, the latest, wait for a link that is being dialled again."""
_MOST_QUEUED_BYTES = 16 << 20
"""Who lets so much wait does not read, though its machine answers: stopped, perhaps."""
_logger = logging.getLogger(__name__)


class Links:
    """All control connections of one peer.

    Args:
        caller: opens connections.
        timeout_of: how long a member is dialled before it is reported unlinked, seconds; half
            of that when a link was up before.
        emit: takes Linked, Unlinked and Heard; never called from within :meth:`connect`,
            :meth:`send` or :meth:`hang_up`.
        in_view: whether an incarnation is in the view, as member or learner.
        spawn: starts a task whose failure ends the process.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        timeout_of: Callable[[Uid], float],
        emit: Callable[[Event], None],
        in_view: Callable[[Uid], bool],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
    ) -> None:
        self._caller = caller
        self._me = caller.me
        self._timeout_of = timeout_of
        self._emit = emit
        self._in_view = in_view
        self._spawn = spawn
        self._open: dict[Uid, list[Connection]] = {}
        self._up: set[Uid] = set()
        self._unsent: dict[Uid, deque[Message]] = {}
        self._wanted: dict[Uid, Member] = {}
        self._dialling: dict[Uid, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[Channel] = set()
        self._closed = False
        self._said: tuple[Message, bytes] | None = None
        """The last message, and its bytes."""

    # ---- face ------------------------------------------------------------------------------

    @property
    def up(self) -> frozenset[Uid]:
        """Incarnations of which Linked was the last report."""
        return frozenset(self._up)

    def connect(self, member: Member) -> None:
        """Hold a connection to this member from now on."""
        if self._closed or member.uid == self._me.uid:
            return
        self._wanted[member.uid] = member
        if not self._open.get(member.uid) and member.uid not in self._dialling:
            bound_s = self._timeout_of(member.uid)
            self._dial_soon(member, bound_s, "it was never reached", retry=True)

    def send(self, to: Uid, message: Message) -> None:
        """Send on the oldest connection that is alive.

        If there is none, it waits until one is there or the link is reported down, and is told
        with that; what only says where this peer stands at present does not.
        """
        for connection in self._open.get(to, ()):
            if connection.channel.queued_bytes > _MOST_QUEUED_BYTES:
                connection.channel.abort()
            if not connection.channel.closing:
                connection.channel.send(self._encode(message))
                return
        if to in self._up and not isinstance(message, Status):
            self._unsent.setdefault(to, deque(maxlen=_MOST_UNSENT)).append(message)

    def _encode(self, message: Message) -> bytes:
        """A view of a thousand members takes a millisecond, and is told to each of them."""
        if self._said is None or self._said[0] is not message:
            self._said = message, encode(message)
        return self._said[1]

    def hang_up(self, uid: Uid) -> None:
        """Close all connections to that incarnation once what is queued is sent."""
        self._wanted.pop(uid, None)
        self._up.discard(uid)
        self._unsent.pop(uid, None)
        if task := self._dialling.pop(uid, None):
            task.cancel()
        for connection in self._open.pop(uid, ()):
            self._close(connection.channel)

    def redial(self, uid: Uid, reason: str) -> None:
        """Drop all connections to that incarnation, with what is queued, and dial it anew."""
        for connection in list(self._open.get(uid, ())):
            self._lose(connection, reason)

    async def adopt(self, sock: socket.socket) -> None:
        """Greet whoever dialled this control connection (its preamble is read)."""
        connection = await self._caller.answer(sock)
        if connection is not None:
            self._register(connection)

    async def meet(self, address: Address, timeout_s: float) -> Member:
        """Dial an address and keep the connection.

        Returns:
            Who is there; this incarnation itself if the address is its own.

        Raises:
            AddressError, JoinError, WireError, OSError: see :meth:`Caller.call`.
        """
        connection = await self._caller.call(address, timeout_s)
        self._register(connection)
        return connection.member

    async def aclose(self, flush_s: float = 1.0) -> None:
        """Send what is queued, for at most ``flush_s`` seconds, and close everything."""
        self._closed = True
        for uid in list(self._open) + list(self._dialling):
            self.hang_up(uid)
        closing = list(self._closing)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(flush_s):
                await asyncio.gather(*(channel.wait_closed() for channel in closing))
        for channel in closing:
            channel.abort()
        for task in self._tasks:
            task.cancel()

    # ---- connections -----------------------------------------------------------------------

    def _register(self, connection: Connection) -> None:
        member = connection.member
        if member.uid == self._me.uid or self._closed:
            connection.channel.close()
            return
        self._open.setdefault(member.uid, []).append(connection)
        if member.uid not in self._up:
            self._up.add(member.uid)
            self._emit(Linked(member))
        for message in self._unsent.pop(member.uid, ()):
            self.send(member.uid, message)
        self._start(self._listen(connection))

    async def _listen(self, connection: Connection) -> None:
        uid = connection.member.uid
        reason = "it closed the connection"

        def take(data: bytes) -> None:
            message: AnyMessage = decode(data)
            if connection in self._open.get(uid, ()):
                self._emit(Heard(uid, message))

        try:
            await connection.channel.listen(take)
        except WireError as error:
            reason = str(error)
            _logger.warning("closed the connection to %s: %s", uid, reason)
        except OSError as error:
            reason = f"the connection broke: {in_words(error)}"
        self._lose(connection, reason)

    def _lose(self, connection: Connection, reason: str) -> None:
        connection.channel.abort()
        self._closing.discard(connection.channel)
        member = connection.member
        left = self._open.get(member.uid, [])
        if connection not in left:
            return
        left.remove(connection)
        if left:
            return
        del self._open[member.uid]
        needed = member.uid in self._wanted or self._in_view(member.uid)
        if not needed or member.port == 0:
            self._report_down(member.uid, reason)
        elif member.uid not in self._dialling:
            self._dial_soon(member, self._timeout_of(member.uid) / 2, reason, retry=False)

    def _close(self, channel: Channel) -> None:
        self._closing.add(channel)
        channel.close()

    # ---- dialling --------------------------------------------------------------------------

    def _dial_soon(self, member: Member, bound_s: float, reason: str, *, retry: bool) -> None:
        self._dialling[member.uid] = self._start(self._hold(member, bound_s, reason, retry))

    async def _hold(self, member: Member, bound_s: float, reason: str, retry: bool) -> None:
        try:
            await self._dial_on(member, bound_s, reason, retry)
        finally:
            # At once, and not when the task is over: a link may be lost before that.
            if self._dialling.get(member.uid) is asyncio.current_task():
                del self._dialling[member.uid]

    async def _dial_on(self, member: Member, bound_s: float, reason: str, retry: bool) -> None:
        """Dial until linked; past the bound say that it is not, and go on while it is in view."""
        why = await self._dial_until(member, bound_s, retry)
        if why is None or self._dialling.get(member.uid) is not asyncio.current_task():
            return  # in the last case it has been hung up on
        self._report_down(member.uid, f"{reason}; {why}")
        patience = 1
        while self._in_view(member.uid) and not _is_gone(member, self._me):
            timeout_s = self._timeout_of(member.uid)
            await asyncio.sleep(timeout_s / 2)
            if self._open.get(member.uid):
                return
            if retry:  # it may be far away, which nobody knows before a link has been up
                patience = min(2 * patience, _MOST_PATIENCE)
            why = await self._dial_until(member, patience * timeout_s, retry=False)
            if why is None:
                return
            if member.uid in self._up:
                self._report_down(member.uid, why)
        self._wanted.pop(member.uid, None)

    async def _dial_until(self, member: Member, bound_s: float, retry: bool) -> str | None:
        """Why the member could not be reached within ``bound_s`` seconds, None if linked."""
        loop = asyncio.get_running_loop()
        deadline, why = loop.time() + bound_s, ""
        while True:
            said = await self._dial_once(member, max(0.01, deadline - loop.time()))
            if self._open.get(member.uid):
                return None
            if not why or loop.time() < deadline:  # a call cut short says less than one before
                why = said
            if not retry or loop.time() + _RETRY_S > deadline or _is_gone(member, self._me):
                return why
            await asyncio.sleep(_RETRY_S)

    async def _dial_once(self, member: Member, bound_s: float) -> str:
        """Dial, but wait no longer than its process lives if this machine can tell."""
        loop, address, over = asyncio.get_running_loop(), Address(member.host, member.port), False

        def look() -> None:
            if not over and _is_gone(member, self._me):
                lives.reschedule(loop.time())
            elif not over and member.machine == self._me.machine:
                loop.call_later(_GONE_POLL_S, look)

        try:
            async with asyncio.timeout(None) as lives:
                look()
                found = await self.meet(address, bound_s)
            return f"{address} is now {found.uid}"
        except (OSError, ChaosError) as error:
            if lives.expired():
                return "its process is gone"
            said = in_words(error)
            return said if isinstance(error, AddressError) else f"dialling {address}: {said}"
        finally:
            over = True

    def _report_down(self, uid: Uid, reason: str) -> None:
        if not self._open.get(uid):
            self._up.discard(uid)
            self._emit(Unlinked(uid, reason, tuple(self._unsent.pop(uid, ()))))

    def _start(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._spawn(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _is_gone(member: Member, me: Member) -> bool:
    """Whether this machine knows that the member's peer process has ended."""
    return me.machine != "" and member.machine == me.machine and process_gone(member.pid)
