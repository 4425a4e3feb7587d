"""The data links of a worker to the others of its view: met, mended, let go."""

from __future__ import annotations

import ssl
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
from lightning_chaos.worker.mending import NEVER, Mending

REACH_TIMEOUTS = 5
"""A member that cannot be met for so many timeouts is complained of."""


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
    """One link to each other member and learner.

    A link that breaks between two live members is made anew, and the peer is told that frames
    were lost; one that cannot be is complained of, and the peers find out why.  It is dialled all
    the same until it works, also while the view does without it or all are frozen and wait for
    each other: the peer is told then, and counts on it again.

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
        self._owed: dict[Uid, bool] = {}
        """Of whose link the peer is told once it works; whether frames were lost that count."""
        self._spare: set[Uid] = set()
        """Links made while no view has them."""
        self._links = DataLinks(
            me.uid,
            run,
            self,
            dialler=dialler,
            pacer_for=pacer_for,
            dial_tls=dial_tls,
            accept_tls=accept_tls,
        )
        self._mending = Mending(
            me, self._links, lambda: self.timeout_s, self._wanted, self._complain, owner.spawn
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
        self._spare = {uid for uid in self._spare if not self._linked_by(view, uid)}
        if view.find(self._me.uid) is not None:
            for uid in [uid for uid in self._owed if view.find(uid) is None and self._needed(uid)]:
                # Nobody mends it now, and rounds before the leaver goes still need it.
                self._owner.tell_peer(local.Broken(uid, "the link of a leaver is lost", False))
        # What a link lost that no view needs any more is settled.
        owed = {uid: lost for uid, lost in self._owed.items() if view.find(uid) is not None}
        self._owed = {uid: lost and self._needed(uid) for uid, lost in owed.items()}
        for member in (*view.members, *view.learners):
            if member.uid in self._linked or not self._known(member.uid):
                continue
            joins = view.joins(self._me.uid, member.uid)
            if not joins and member.uid not in self._owed:
                self._complain(member.uid, "there is no data link to it yet")
            waits = joins and dials(self._me, member)
            self._mending.begin(member, "", REACH_TIMEOUTS * self.timeout_s if waits else NEVER)

    def reached(self, uid: Uid) -> None:
        """The peers have a link: if there is none for data, it is dialled at once."""
        self._mending.hurry(uid)

    def let_go(self, *views: View) -> None:
        """Close the links to whoever is neither in these views nor in the newest."""
        known = {m.uid for v in (*views, self._view) if v for m in (*v.members, *v.learners)}
        self._drop((self._linked | self._links.known) - known)

    def let_missing_go(self) -> None:
        """Close the links that no view says are there: the others work without them, too."""
        for uid in [uid for uid in self._linked - self._spare if not self._needed(uid)]:
            member = self._known(uid)
            if member is not None:
                # It must prove that it works before a view counts on it again.
                self._drop([uid])
                self._complain(uid, "given up; it has to be made anew")
                self._mending.begin(member, "", NEVER)

    def _drop(self, uids: Iterable[Uid]) -> None:
        gone = list(uids)
        self._linked.difference_update(gone)
        self._spare.difference_update(gone)
        self._links.drop(gone)

    def _known(self, uid: Uid) -> Member | None:
        """That one, if it and this node are in the newest view."""
        view, me = self._view, self._me.uid
        return view.find(uid) if view is not None and uid != me and view.find(me) else None

    def _wanted(self, uid: Uid) -> bool:
        """A link to that one is of use."""
        return not self._owner.out_of_play and self._known(uid) is not None

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
        self._mending.end(uid)
        if not self._needed(uid):
            self._spare.add(uid)
        frames_lost = self._owed.pop(uid, None)
        if frames_lost:
            lost = "the data connection was lost and made anew"
            self._owner.tell_peer(local.Broken(uid, lost, True))
        elif frames_lost is not None:
            self._owner.tell_peer(local.Restored(uid))
        self._owner.links_changed()

    def broken(self, uid: Uid, reason: str) -> None:
        """A link is gone: mend it, or let the peers find out why."""
        self._linked.discard(uid)
        self._spare.discard(uid)
        self._owner.links_changed()
        if self._view is None or self._view.find(self._me.uid) is None or self._owner.out_of_play:
            return
        member = self._known(uid)
        if member is not None:
            self._owed[uid] = self._needed(uid)
            self._mending.begin(member, reason, self._mends_s(member))
        if self._needed(uid) and not self._linked_by(self._view, uid):
            # It is to go as planned, but not yet: this round still needs it.
            self._owner.tell_peer(local.Broken(uid, reason, False))

    def word(self, uid: Uid, reason: str) -> None:
        """Another incarnation ends without its peer."""
        self._owner.tell_peer(local.Word(uid, reason))

    # ---- links that are not there ----------------------------------------------------------

    def _mends_s(self, member: Member) -> float:
        """How long a lost link may lack: one call of this side's, or as long as that takes."""
        return 0.0 if dials(self._me, member) else self.timeout_s

    def _complain(self, uid: Uid, reason: str) -> None:
        self._owed.setdefault(uid, False)
        self._owner.tell_peer(local.Broken(uid, reason, False))
