"""Where one peer stands, and what all its parts share: links, view, clock, who acts."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

from lightning_chaos.protocol import local
from lightning_chaos.protocol.acceptor import Acceptor
from lightning_chaos.protocol.events import Action, Connect, Hangup, Level, Log, Send, Tell
from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.islands import Islands
from lightning_chaos.protocol.messages import (
    AnyMessage,
    Carry,
    Commit,
    LastWord,
    Message,
    Status,
    encode,
)
from lightning_chaos.protocol.permits import Permits
from lightning_chaos.protocol.quorum import may_commit
from lightning_chaos.protocol.ranges import MOST_HOPS
from lightning_chaos.protocol.routes import Routes
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.trips import NO_ECHO, Echo, Trips
from lightning_chaos.protocol.values import Member, Uid, View
from lightning_chaos.protocol.wait import Wait

START_ADVICE = (
    "Start the others, or set min_members (CHAOS_MIN_MEMBERS) to fewer or start_timeout "
    "(CHAOS_START_TIMEOUT) to more"
)


QUORUM_ADVICE = (
    "Bring the others back and start this node again, or set quorum='any' (CHAOS_QUORUM) at all "
    "nodes to let a side without a quorum go on alone; quorum_timeout (CHAOS_QUORUM_TIMEOUT) says "
    "how long to wait"
)


class Role(enum.Enum):
    """Where this incarnation stands."""

    SEARCHING = "searching"
    NEWCOMER = "newcomer"
    """It knows the run's view and is not in it yet."""
    LEARNER = "learner"
    MEMBER = "member"
    LEAVING = "leaving"
    """Planned out: it works until the switch round."""
    OUT = "out"


ACTIVE = (Role.MEMBER, Role.LEAVING)
"""Of those who work under the view: as member, or as leaver until its last round."""


class Standing:
    """One incarnation's knowledge, and whoever does what it decides.

    Args:
        me: this incarnation.
        run: id of the run.
        timeout_s: longest silence tolerated, seconds; None to derive it from round trips.
        worker_timeout_s: longest time a worker may take to freeze or to make progress, seconds.
        hear: takes messages that this peer sends to itself.
        alone: a side without a quorum goes on alone, as an island (``quorum="any"``).
    """

    def __init__(
        self,
        me: Member,
        run: str,
        timeout_s: float | None,
        worker_timeout_s: float,
        hear: Callable[[Uid, AnyMessage], None],
        alone: bool,
    ) -> None:
        self.me = me
        self.run = run
        self.timeouts = Timeouts(timeout_s)
        self.trips = Trips()
        self.worker_timeout_s = worker_timeout_s
        self._hear = hear
        self.alone = alone
        self.role = Role.SEARCHING
        self.view: View | None = None
        """The view installed, or the one a newcomer has been told."""
        self.commit: Commit | None = None
        """What installed it, None for a founder's first view."""
        self.now = 0.0
        self.do: Callable[[Action], object]
        """Does what is decided in the present step; given with each."""
        self.linked: dict[Uid, Member] = {}
        self.statuses: dict[Uid, Status] = {}
        self.evidence = Evidence(me.uid, self.timeouts)
        self.routes = Routes(me.uid, self.linked.keys(), self.evidence)
        self.permits = Permits()
        self.acceptor = Acceptor(me.uid)
        self.islands = Islands()
        self.samples: int | None = None
        """Committed by the rounds before its worker's present one; None while that is not known."""
        self.finished = -1
        """Round after which training ended here, -1 while it goes on."""
        self.allowance_s = 0.0
        """How long others should wait for its worker, 0 while it does not say."""
        self.slow: tuple[Uid, ...] = ()
        """Members that compute far longer than the others, as its worker says."""
        self.wait: Wait | None = None
        """What it waits for, None if for nothing."""
        self.said_unreachable: tuple[Uid, ...] | None = None
        """What was said under this view, None if nothing yet."""

    @property
    def timeout_s(self) -> float:
        """Longest silence tolerated of any link, for what is not about one link, seconds."""
        return self.timeouts.longest_s

    @property
    def active(self) -> bool:
        """It works under the view."""
        return self.role in ACTIVE

    def do_all(self, actions: Iterable[Action]) -> None:
        """Do several things, one after the other."""
        for action in actions:
            self.do(action)

    def send(self, to: Uid, message: Message) -> None:
        """Send to an incarnation, or to oneself; dropped if no way to it is known."""
        if to == self.me.uid:
            self._hear(to, message)  # type: ignore[arg-type]
            return
        hop = self.hop(to)
        if hop is not None and hop != to:
            self.pass_on(hop, Carry(self.me.uid, to, MOST_HOPS, encode(message)))
        elif to in self.linked:  # if it is silent, it may still hear
            self.do(Send(to, message))

    def send_again(self, to: Uid, messages: Iterable[Message]) -> None:
        """Send what a neighbour to whom the link is lost did not get: through others, if at all."""
        for message in messages:
            if not isinstance(message, Carry):
                self.send(to, message)
            elif (hop := self.hop(message.to)) is not None:
                self.pass_on(hop, message)

    def pass_on(self, hop: Uid, carry: Carry) -> None:
        """Give a neighbour a message for somebody else."""
        self.do(Send(hop, carry))

    def hop(self, to: Uid) -> Uid | None:
        """The neighbour through which that incarnation is reached; itself if it is linked."""
        if self.view is None:
            return to if to in self.linked else None
        return self.routes.hop(to, self.view.everybody)

    def reaches(self, uid: Uid) -> bool:
        """A way to it is known, straight or not."""
        return self.hop(uid) is not None

    def send_all(self, message: Message) -> None:
        """Send to everybody linked, whatever becomes of it there, and to the rest of the view."""
        for uid in self.linked:
            self.do(Send(uid, message))
        self._send_around(message)

    def beat(self, *uids: Uid) -> None:
        """Say where this peer stands, to these neighbours or, if none is named, to everybody."""
        sent = self.trips.stamp(self.now)
        for uid in uids or self.linked:
            self.do(Send(uid, self.status(sent, self.trips.echo(self.now, uid))))
        if not uids:
            self._send_around(self.status())

    def _send_around(self, message: Message) -> None:
        """Send to those of the view to whom there is no link, through others."""
        if self.view is not None:
            for uid in self.view.everybody:
                if uid != self.me.uid and not self.routes.direct(uid):
                    hop = self.hop(uid)
                    if hop is not None:
                        self.pass_on(hop, Carry(self.me.uid, uid, MOST_HOPS, encode(message)))

    def ask_members(self, message: Message) -> None:
        """Ask whoever leads: all members hear it, the lead acts on it, now or after a change."""
        if self.view is not None:
            for uid in self.view.uids:
                self.send(uid, message)

    def tell(self, message: local.Local) -> None:
        """Tell the worker."""
        self.do(Tell(message))

    def log(self, text: str, level: Level = Level.INFO) -> None:
        """A line of the run's story."""
        self.do(Log(level, text))

    def allowed_s(self, uid: Uid) -> float:
        """How long to wait for that one's worker."""
        status = self.statuses.get(uid)
        return (status.allows if status is not None else 0.0) or self.worker_timeout_s

    def forget_strangers(self) -> None:
        """Who is neither linked nor in the view is no neighbour any more."""
        known = {*self.linked, *(self.view.everybody if self.view is not None else ())}
        carried = self.routes.backs.keys()
        self.statuses = {u: s for u, s in self.statuses.items() if u in known or u in carried}
        self.trips.keep_only(known)
        self.timeouts.keep_only(known)

    def connect_all(self, view: View) -> None:
        """Hold connections to everybody in the view."""
        for member in (*view.members, *view.learners):
            if member.uid != self.me.uid:
                self.do(Connect(member))

    def hang_up(self, uid: Uid, reason: str) -> None:
        """Have nothing to do with that one any more; nobody reports that its link is down."""
        self.do(Hangup(uid, reason))
        self.linked.pop(uid, None)
        self.statuses.pop(uid, None)
        self.evidence.forget(uid)
        self.forget_strangers()

    def foreign(self, view: View) -> bool:
        """It is of another lineage than this peer's view and all that it has agreed to."""
        assert self.view is not None
        agreed = (p.view.lineage.name for p in self.acceptor.acked)
        return view.lineage.name not in (self.view.lineage.name, *agreed)

    @property
    def lacks_quorum(self) -> str:
        """Why those who can be reached may not change the view, '' if they may."""
        if self.view is None or not self.acceptor.frozen:
            return ""
        side = self.evidence.side(self.now, self.view.seated, self.view.missing)
        enough, why = may_commit(self.view.uids, side, self.evidence.dead)
        return "" if enough else why

    def status(self, sent: int = 0, echo: Echo = NO_ECHO) -> Status:
        """What heartbeats say."""
        epoch = self.view.epoch if self.view and self.role is not Role.NEWCOMER else 0
        said = self.said_unreachable or ()
        waiting = self.wait.text(self.now) if self.wait is not None else ""
        return Status(
            *(epoch, self.permits.begun, self.finished, waiting, said),
            sent=sent,
            echo=echo,
            allows=self.allowance_s,
            slow=self.slow,
        )

    def drop_out(self, reason: str, others: View | None = None) -> None:
        """No part in the run any more; the worker may come back with a new incarnation.

        Args:
            reason: for people.
            others: the view of those who go on, if it is known.
        """
        self.role = Role.OUT
        self.tell(local.Removed(reason, tuple(m.address for m in others.members) if others else ()))

    def resign(self, reason: str) -> None:
        """Say the last word of this incarnation."""
        self.send_all(LastWord(self.me.uid, reason))
        self.drop_out(reason)
