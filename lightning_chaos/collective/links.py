"""All data connections of a worker: at most one to each other member."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterable

from lightning_chaos.collective.actions import Landing, Send, Verdict
from lightning_chaos.collective.frames import Frame, FrameKind, Greeting
from lightning_chaos.collective.gauging import End, Gauging
from lightning_chaos.collective.link import Link
from lightning_chaos.collective.outflow import PIECE_BYTES
from lightning_chaos.collective.owners import LinksOwner
from lightning_chaos.protocol.values import PROTOCOL_VERSION, Member, Uid
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import Dialler, dial, send_at_once
from lightning_chaos.transport.door import Kind
from lightning_chaos.transport.pacer import Pacer

CLOSE_TIMEOUT_S = 1.0
LINGER_S = 10.0
MAX_WORD_CHARS = 500

_log = logging.getLogger(__name__)


def dials(me: Member, other: Member) -> bool:
    """Of each pair exactly one dials: the one that started later (it found the other)."""
    return (me.incarnation, me.uid) > (other.incarnation, other.uid)


class DataLinks:
    """Sends and receives frames; lives on one loop, every method is called there.

    Frames to a member without a link wait for one.  A connection that breaks takes the frames
    queued for it along; whether the other got those sent before is unknown, so the members must
    flush (``Broken`` to the peer).  Of two connections with one member the later one counts.

    Args:
        me: this worker's identity.
        run: run id; a connection of another one is closed.
        owner: the driver.
        dialler: opens connections.
        pacer_for: speed limit of the link to a member (shared with whoever else sends to it).
        dial_tls: context for connections this side opens, None for plain bytes.
        accept_tls: context for connections it takes.
    """

    def __init__(
        self,
        me: Uid,
        run: str,
        owner: LinksOwner,
        *,
        dialler: Dialler,
        pacer_for: Callable[[Uid], Pacer],
        dial_tls: ssl.SSLContext | None = None,
        accept_tls: ssl.SSLContext | None = None,
    ) -> None:
        self._me = me
        self._run = run
        self._owner = owner
        self._dialler = dialler
        self._pacer_for = pacer_for
        self._dial_tls = dial_tls
        self._accept_tls = accept_tls
        self._ends: dict[Uid, End] = {}
        self.gauging = Gauging(self._ends)
        self._links: set[Link] = set()
        self._meant: dict[Link, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._scratch = memoryview(bytearray(PIECE_BYTES))
        self._closed = False

    # ---- connections -------------------------------------------------------------------------

    def adopt(self, sock: socket.socket) -> None:
        """Take over an accepted connection whose preamble has been read."""
        if self._closed:
            sock.close()
            return
        task = asyncio.get_running_loop().create_task(self._accept(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def connect(self, member: Member, timeout_s: float) -> None:
        """Open a link to a member; nothing happens if there is one.

        Raises:
            OSError: it cannot be reached or does not answer within ``timeout_s`` seconds.
        """
        if self.has(member.uid):
            return
        link = self._new_link(member, None)
        greeted = self._meant[link] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._open(link, member, timeout_s)
                await greeted
        except TimeoutError:
            raise OSError(f"{member.uid} did not answer within {timeout_s:g} s") from None
        finally:
            del self._meant[link]
            if not self._is_current(link):
                self._forget(link, "given up")

    def has(self, uid: Uid) -> bool:
        """There is a link to that member."""
        end = self._ends.get(uid)
        return end is not None and end.link is not None and not end.link.closing

    @property
    def known(self) -> frozenset[Uid]:
        """Of whom anything is kept: a link, frames for one, or what one has shown."""
        return frozenset(self._ends)

    def drop(self, uids: Iterable[Uid]) -> None:
        """Close the links to these once what is queued for them is sent, within bounds.

        A leaver may need our last results longer than we need it.
        """
        for uid in uids:
            end = self._ends.pop(uid, None)
            if end is not None and end.link is not None:
                end.link.hang_up("not needed any more", LINGER_S)

    async def aclose(self) -> None:
        """Close everything, bounded; the owner is told nothing more."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        links = [link for link in self._links if link.up]
        self._ends.clear()
        for link in links:
            link.close("this worker ends")
        waits = [asyncio.ensure_future(link.over.wait()) for link in links]
        if waits:
            await asyncio.wait(waits, timeout=CLOSE_TIMEOUT_S)
        for link in links:
            link.abort("this worker ends")
        await asyncio.gather(*waits)

    # ---- frames ------------------------------------------------------------------------------

    def send(self, action: Send) -> None:
        """Queue a frame; nothing is copied, its payload must keep its value until received."""
        if self._closed:
            return
        self._end(action.to).put(action.frame, action.payload)

    def purge(self) -> None:
        """Forget frames that are queued and not begun."""
        for end in self._ends.values():
            end.queue.clear()

    def resume(self) -> None:
        """Ask again where frames left unread may go."""
        for link in list(self._links):
            link.resume()

    async def say_word(self, members: Iterable[Member], reason: str, timeout_s: float) -> None:
        """Tell these members that this incarnation votes no more.

        Each by a connection of its own, since the link may be full, or left unread at the other
        end.  Who cannot be reached within ``timeout_s`` seconds is not told.
        """
        word = reason[:MAX_WORD_CHARS]
        others = [member for member in members if member.uid != self._me]
        told = await asyncio.gather(
            *(self._say(member, word, timeout_s) for member in others), return_exceptions=True
        )
        for member, error in zip(others, told, strict=True):
            if isinstance(error, BaseException):
                _log.info("%s was not told that %s goes: %s", member.uid, self._me, error)

    # ---- inside ------------------------------------------------------------------------------

    async def _accept(self, sock: socket.socket) -> None:
        link = Link(self, self._scratch)
        self._links.add(link)
        loop = asyncio.get_running_loop()
        try:
            send_at_once(sock)
            await loop.connect_accepted_socket(lambda: link, sock, ssl=self._accept_tls)
        except BaseException as error:
            sock.close()
            self._forget(link, "refused")
            if not isinstance(error, OSError):
                raise
            _log.warning("data connection refused: %s", error)

    def _new_link(self, member: Member, word: str | None) -> Link:
        greeting = Greeting(PROTOCOL_VERSION, self._run, self._me, member.uid, word)
        link = Link(self, self._scratch, greeting)
        self._links.add(link)
        return link

    async def _open(self, link: Link, member: Member, timeout_s: float) -> None:
        address = Address(member.host, member.port)
        sock = await dial(self._dialler, address, Kind.DATA, timeout_s)
        try:
            if self._closed:
                raise OSError("this worker ends")
            await asyncio.get_running_loop().create_connection(
                lambda: link,
                sock=sock,
                ssl=self._dial_tls,
                server_hostname=member.host if self._dial_tls else None,
            )
        except BaseException:
            sock.close()
            raise

    async def _say(self, member: Member, word: str, timeout_s: float) -> None:
        link = self._new_link(member, word)
        try:
            async with asyncio.timeout(timeout_s):
                await self._open(link, member, timeout_s)
                # The other side closes when it has read the word.
                await link.over.wait()
        finally:
            self._forget(link, "said")

    def _forget(self, link: Link, reason: str) -> None:
        """A connection that did not come up, or is to go without a trace."""
        link.abort(reason)
        self._links.discard(link)

    def _end(self, uid: Uid) -> End:
        if uid not in self._ends:
            self._ends[uid] = End(self._pacer_for(uid))
        return self._ends[uid]

    def _is_current(self, link: Link) -> bool:
        end = self._ends.get(link.uid)
        return end is not None and end.link is link

    # ---- told by links (see LinkOwner) -------------------------------------------------------

    def greeted(self, link: Link, greeting: Greeting) -> bool:
        """Check who it is; of two connections with one member the later one counts."""
        refusal = greeting.refusal(self._me, self._run)
        if link.meant_for and link.meant_for != greeting.sender:
            refusal = f"{link.meant_for} was dialled"
        if refusal or self._closed:
            _log.warning("data connection of %s closed: %s", greeting.sender, refusal)
            return False
        if greeting.word is not None:
            self._owner.word(greeting.sender, greeting.word)
            return False
        meant = self._meant.get(link)
        if meant is None:
            link.greet(Greeting(PROTOCOL_VERSION, self._run, self._me, greeting.sender))
        elif not meant.done():
            meant.set_result(None)
        end = self._end(greeting.sender)
        if end.link is not None:
            before, end.link = end.link, None
            before.abort("replaced by a new connection")
            end.queue.clear()
            self._owner.broken(link.uid, "replaced by a new connection")
        end.link = link
        self._owner.connected(link.uid)
        end.meter.end()
        link.meter(end.meter)
        link.serve(end.queue, end.pacer)
        return True

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        """Pass on, but for trains."""
        if frame.kind in (FrameKind.ASK, FrameKind.TRAIN):
            return self.gauging.place(sender, frame)
        where = self._owner.place(sender, frame)
        if where is Verdict.PAUSE:
            self.gauging.left_unread(sender)
        return where

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        """Pass on."""
        self._owner.complete(sender, frame, landing)

    def ended(self, link: Link, reason: str) -> None:
        """Tell the owner if this was the member's link."""
        self._links.discard(link)
        meant = self._meant.get(link)
        if meant is not None and not meant.done():
            meant.set_exception(OSError(f"{link.uid or 'it'} closed the connection: {reason}"))
        if self._is_current(link):
            end = self._ends[link.uid]
            end.link = None
            end.queue.clear()
            if not self._closed:
                self._owner.broken(link.uid, reason)
