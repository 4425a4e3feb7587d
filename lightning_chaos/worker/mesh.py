"""The data links of a worker to all members of its views: met, mended, let go."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from lightning_chaos.collective.actions import Landing, Send, Verdict
from lightning_chaos.collective.frames import Frame
from lightning_chaos.collective.links import DataLinks, dials
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import Member, Uid, View
from lightning_chaos.transport.dial import Dialler
from lightning_chaos.transport.pacer import Pacer

REACH_TIMEOUTS = 5
"""A member that cannot be met for so many timeouts is complained of."""
_RETRY_S = 0.05


class MeshOwner(Protocol):
    """The station; called on the loop."""

    @property
    def in_force(self) -> View | None:
        """The view that the present round runs under."""
        ...

    @property
    def out_of_play(self) -> bool:
        """Apart or finished: links that break now are nobody's business."""
        ...

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        """See :meth:`Exchange.place`."""
        ...

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        """See :meth:`Exchange.complete`."""
        ...

    def tell_peer(self, message: local.Local) -> None:
        """Say something to this node's peer."""
        ...

    def links_changed(self) -> None:
        """A link came up or went: whoever waits for that looks again."""
        ...

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a task that ends with the station."""
        ...


class Mesh:
    """One link to each other member and learner.

    A link that breaks between two live members is made anew, and the peer is told that frames
    were lost; one that cannot be is complained of, and the peers find out why.

    Args:
        me: this incarnation.
        run: id of the run.
        timeout_s: how long mending may take, seconds.
        owner: the station.
        dialler: opens connections.
        pacer_for: speed limit of the link to a member.
        dial_tls: context for connections this side opens, None for plain bytes.
        accept_tls: context for connections it takes.
    """

    def __init__(
        self,
        me: Member,
        run: str,
        timeout_s: float,
        owner: MeshOwner,
        *,
        dialler: Dialler,
        pacer_for: Callable[[Uid], Pacer],
        dial_tls: ssl.SSLContext | None,
        accept_tls: ssl.SSLContext | None,
    ) -> None:
        self._me = me
        self._timeout_s = timeout_s
        self._owner = owner
        self._view: View | None = None
        self._linked: set[Uid] = set()
        self._redialling: set[Uid] = set()
        self._links = DataLinks(
            me.uid,
            run,
            self,
            dialler=dialler,
            pacer_for=pacer_for,
            dial_tls=dial_tls,
            accept_tls=accept_tls,
        )
        self.adopt = self._links.adopt
        self.resume = self._links.resume
        self.purge = self._links.purge
        self.aclose = self._links.aclose

    @property
    def linked(self) -> frozenset[Uid]:
        """To whom there is a link now."""
        return frozenset(self._linked)

    def send(self, action: Send) -> None:
        """Queue a frame."""
        self._links.send(action)

    async def say_word(self, reason: str) -> None:
        """Tell the members that this incarnation votes no more."""
        if self._view is not None:
            others = [m for m in self._view.members if m != self._me]
            await self._links.say_word(others, reason, self._timeout_s)

    # ---- views -----------------------------------------------------------------------------

    def meet(self, view: View) -> None:
        """A view is installed: dial whoever of it started before this one.

        Learners are met too: they need their links before their seat.
        """
        self._view = view
        if view.find(self._me.uid) is None:
            return
        for member in (*view.members, *view.learners):
            if member != self._me and dials(self._me, member) and member.uid not in self._linked:
                self._owner.spawn(self._reach(member))

    def let_go(self, *views: View) -> None:
        """Close the links to whoever is neither in these views nor in the newest."""
        known = {m.uid for v in (*views, self._view) if v for m in (*v.members, *v.learners)}
        gone = [uid for uid in self._linked if uid not in known]
        self._linked.difference_update(gone)
        self._links.drop(gone)

    # ---- told by the links (LinksOwner) ----------------------------------------------------

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        """See :meth:`Exchange.place`."""
        return self._owner.place(sender, frame)

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        """See :meth:`Exchange.complete`."""
        self._owner.complete(sender, frame, landing)

    def connected(self, uid: Uid) -> None:
        """A link is up."""
        self._linked.add(uid)
        if uid in self._redialling:
            self._redialling.discard(uid)
            lost = "the data connection was lost and made anew"
            self._owner.tell_peer(local.Broken(uid, lost, True))
        self._owner.links_changed()

    def broken(self, uid: Uid, reason: str) -> None:
        """A link is gone: mend it, or let the peers find out why."""
        self._linked.discard(uid)
        self._owner.links_changed()
        view = self._view
        if view is None or view.find(self._me.uid) is None or self._owner.out_of_play:
            return
        member = view.find(uid)
        if member is not None:
            self._redialling.add(uid)
            self._owner.spawn(self._mend(member, reason))
        elif (now := self._owner.in_force) is not None and now.find(uid) is not None:
            # It leaves as planned, but not yet: this round still needs it.
            self._owner.tell_peer(local.Broken(uid, reason, False))

    def word(self, uid: Uid, reason: str) -> None:
        """Another incarnation ends without its peer."""
        self._owner.tell_peer(local.Word(uid, reason))

    # ---- tasks -----------------------------------------------------------------------------

    def _wanted(self, member: Member) -> bool:
        return self._view is not None and self._view.find(member.uid) is not None

    async def _mend(self, member: Member, reason: str) -> None:
        if dials(self._me, member):
            try:
                await self._links.connect(member, self._timeout_s)
                return
            except OSError as error:
                reason = f"{reason}; dialling it again: {error}"
        else:
            deadline = time.monotonic() + self._timeout_s
            while time.monotonic() < deadline:
                if member.uid in self._linked:
                    return
                await asyncio.sleep(self._timeout_s / 20)
        if self._wanted(member) and not self._links.has(member.uid):
            self._owner.tell_peer(local.Broken(member.uid, reason, False))

    async def _reach(self, member: Member) -> None:
        deadline = time.monotonic() + REACH_TIMEOUTS * self._timeout_s
        while not self._owner.out_of_play and self._wanted(member):
            try:
                await self._links.connect(member, self._timeout_s)
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    self._owner.tell_peer(local.Broken(member.uid, str(error), False))
                    return
                await asyncio.sleep(_RETRY_S)
