"""The data links of a worker to those its views link it to: met, mended, let go."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from lightning_chaos.collective.actions import Landing, Send, Verdict
from lightning_chaos.collective.frames import Frame
from lightning_chaos.collective.links import DataLinks, dials
from lightning_chaos.protocol import local
from lightning_chaos.protocol.readings import Reading
from lightning_chaos.protocol.values import Member, Uid, View
from lightning_chaos.transport.dial import Dialler
from lightning_chaos.transport.pacer import Pacer

REACH_TIMEOUTS = 5
"""A member that cannot be met for so many timeouts is complained of."""
_RETRY_S = 0.05


class MeshOwner(Protocol):
    """The station; called on the loop."""

    @property
    def views(self) -> list[View]:
        """Those that the present round and coming ones run under."""
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
    """One link to each other member and learner, but for those that the view says are missing.

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
        self.timeout_s = timeout_s
        """How long mending may take, seconds; better known later."""
        self.trips: dict[Uid, float] = {}
        """Round trips of links, seconds, as the peer has measured them."""
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

    def readings(self) -> dict[Uid, Reading]:
        """See :meth:`Gauging.readings`."""
        return self._links.gauging.readings(self.trips)

    def losses(self) -> dict[Uid, float]:
        """See :meth:`Gauging.losses`."""
        return self._links.gauging.losses()

    def ask_train(self, *, busy: bool) -> None:
        """See :meth:`Gauging.ask`; learners are spared."""
        if self._view is not None and self._view.find(self._me.uid) is not None:
            self._links.gauging.ask(self._view.uids, busy=busy)

    def send(self, action: Send) -> None:
        """Queue a frame."""
        self._links.send(action)

    async def say_word(self, reason: str) -> None:
        """Tell the members that this incarnation votes no more."""
        if self._view is not None:
            others = [m for m in self._view.members if self._linked_by(self._view, m.uid)]
            await self._links.say_word(others, reason, self.timeout_s)

    # ---- views -----------------------------------------------------------------------------

    def meet(self, view: View) -> None:
        """A view is installed: dial whoever of it started before this one.

        Learners are met too: they need their links before their seat.
        """
        self._view = view
        # What a link lost that this view does without is settled.
        self._redialling = {uid for uid in self._redialling if self._linked_by(view, uid)}
        for member in (*view.members, *view.learners):
            wanted = self._linked_by(view, member.uid) and member.uid not in self._linked
            if wanted and dials(self._me, member):
                self._owner.spawn(self._reach(member))

    def let_go(self, *views: View) -> None:
        """Close the links to whoever is neither in these views nor in the newest."""
        known = {m.uid for v in (*views, self._view) if v for m in (*v.members, *v.learners)}
        self._drop(uid for uid in self._linked if uid not in known)

    def let_missing_go(self) -> None:
        """Close the links that no view says are there: the others work without them, too."""
        me, views = self._me.uid, self._owner.views
        missing = {uid for view in views for uid in self._linked if not view.joins(me, uid)}
        self._drop(uid for uid in missing if not self._needed(uid))

    def _drop(self, uids: Iterable[Uid]) -> None:
        gone = list(uids)
        self._linked.difference_update(gone)
        self._links.drop(gone)

    def _linked_by(self, view: View | None, uid: Uid) -> bool:
        """That view has both this node and that one, and a link between them."""
        me = self._me.uid
        if view is None or uid == me or not view.joins(me, uid):
            return False
        return view.find(me) is not None and view.find(uid) is not None

    def _needed(self, uid: Uid) -> bool:
        """The present round or a coming one uses the link to that one."""
        return any(self._linked_by(view, uid) for view in (*self._owner.views, self._view))

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
            if self._needed(uid):
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
        if member is not None and self._linked_by(view, uid):
            self._redialling.add(uid)
            self._owner.spawn(self._mend(member, reason))
        elif self._needed(uid):
            # It is to go as planned, but not yet: this round still needs it.
            self._owner.tell_peer(local.Broken(uid, reason, False))

    def word(self, uid: Uid, reason: str) -> None:
        """Another incarnation ends without its peer."""
        self._owner.tell_peer(local.Word(uid, reason))

    # ---- tasks -----------------------------------------------------------------------------

    def _wanted(self, member: Member) -> bool:
        return self._linked_by(self._view, member.uid)

    async def _mend(self, member: Member, reason: str) -> None:
        if dials(self._me, member):
            try:
                await self._links.connect(member, self.timeout_s)
                return
            except OSError as error:
                reason = f"{reason}; dialling it again: {error}"
        else:
            deadline = time.monotonic() + self.timeout_s
            while time.monotonic() < deadline:
                if member.uid in self._linked:
                    return
                await asyncio.sleep(self.timeout_s / 20)
        if self._wanted(member) and not self._links.has(member.uid):
            self._owner.tell_peer(local.Broken(member.uid, reason, False))

    async def _reach(self, member: Member) -> None:
        deadline = time.monotonic() + REACH_TIMEOUTS * self.timeout_s
        while not self._owner.out_of_play and self._wanted(member):
            try:
                await self._links.connect(member, self.timeout_s)
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    self._owner.tell_peer(local.Broken(member.uid, str(error), False))
                    return
                await asyncio.sleep(_RETRY_S)
