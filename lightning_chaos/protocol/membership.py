"""The state machine of one peer: events in, actions out (design §4).

Everything that happens to one incarnation of a node goes through :meth:`Membership.take`.  It
hands events, and what others say (:mod:`hearing`), to the parts, which share a
:class:`~.standing.Standing`: how it gets to know the run (:mod:`arrival`), what it asks for
(:mod:`requests`), how views change (:mod:`agreement`) and what its worker may do
(:mod:`service`).  Below them: who founds (:mod:`founding`), who is reachable (:mod:`evidence`),
how far the worker may run (:mod:`permits`), what was promised (:mod:`acceptor`), when a member
proposes (:mod:`lead`), who stays if lost links split them (:mod:`parts`), what (:mod:`drafts`,
:mod:`wishes`) and how (:mod:`proposer`, :mod:`change`), what counts as agreement (:mod:`quorum`)
and what frozen workers do next (:mod:`flush`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from lightning_chaos.protocol import local
from lightning_chaos.protocol.agreement import Agreement
from lightning_chaos.protocol.arrival import Arrival
from lightning_chaos.protocol.events import (
    Action,
    Event,
    FromWorker,
    Heard,
    Level,
    Linked,
    ProcessGone,
    Redial,
    Replanned,
    Searched,
    Tick,
    Unlinked,
    WorkerGone,
)
from lightning_chaos.protocol.hearing import Hearing
from lightning_chaos.protocol.messages import (
    Ack,
    AnyMessage,
    LastWord,
    Prepare,
    Status,
    ViewNews,
)
from lightning_chaos.protocol.permits import Permits
from lightning_chaos.protocol.requests import Requests
from lightning_chaos.protocol.service import Service
from lightning_chaos.protocol.standing import Role, Standing
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.trips import Trips
from lightning_chaos.protocol.values import Member, Uid, View

_WITHIN = (Role.MEMBER, Role.LEAVING, Role.LEARNER)
"""Those who say to whom they have no link."""


class Membership:
    """One peer's part in the run.

    Args:
        me: this incarnation.
        run: id of the run; links to other runs never reach this class.
        min_members: members needed before the first round may start.
        timeout_s: longest silence tolerated, seconds; None to derive it from round trips.
        worker_timeout_s: longest time a worker may take to freeze or to make progress, seconds.
        linger_s: how long a finished run is told to latecomers, seconds.
        start_timeout_s: longest time that a node waits for enough others to begin with, and the
            others for its worker to be ready, seconds.
        quorum_timeout_s: longest time that it waits for a quorum once that is lost, seconds.
        base_epoch: last epoch this node knew; a view that it founds is above that.
        generation: of a view that it founds.
        guarded: who has won among candidates founds only when a search says that nobody else can.
        alone: a side without a quorum goes on alone, as an island (``quorum="any"``).
    """

    def __init__(
        self,
        me: Member,
        *,
        run: str,
        min_members: int = 1,
        timeout_s: float | None = 1.0,
        worker_timeout_s: float = 300.0,
        linger_s: float = 30.0,
        start_timeout_s: float = 600.0,
        quorum_timeout_s: float = 3600.0,
        base_epoch: int = 0,
        generation: int = 0,
        guarded: bool = False,
        alone: bool = False,
    ) -> None:
        self.me = me
        self._standing = Standing(me, run, timeout_s, worker_timeout_s, self._hear, alone)
        self._arrival = Arrival(
            self._standing,
            min_members,
            base_epoch,
            generation,
            start_timeout_s,
            guarded=guarded,
        )
        self._requests = Requests(self._standing)
        self._agreement = Agreement(self._standing, self._requests)
        self._survey = self._agreement.survey
        self._hearing = Hearing(self._standing, self._arrival, self._agreement, self._survey)
        self._service = Service(
            self._standing,
            self._requests,
            self._agreement,
            min_members=min_members,
            linger_s=linger_s,
            start_timeout_s=start_timeout_s,
            quorum_timeout_s=quorum_timeout_s,
        )
        self._evidence = self._standing.evidence
        self._sent_status_at = float("-inf")

    # ---- face ------------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        """Where this incarnation stands."""
        return self._standing.role

    @property
    def searching(self) -> bool:
        """True until this node founded the run, found it or gave up."""
        return self.role is Role.SEARCHING

    @property
    def acceptors(self) -> frozenset[Uid]:
        """Once enough candidates want this node to found the run: who they are, itself included."""
        return self._arrival.acceptors if self.searching else frozenset()

    @property
    def waiting(self) -> str:
        """What it waits for, for people, '' if for nothing."""
        return self._standing.wait.reason if self._standing.wait is not None else ""

    @property
    def view(self) -> View | None:
        """The view installed, or the one a newcomer has been told."""
        return self._standing.view

    @property
    def permits(self) -> Permits:
        """How far this node's worker may run."""
        return self._standing.permits

    @property
    def trips(self) -> Trips:
        """The round trips to its neighbours, measured from heartbeats."""
        return self._standing.trips

    @property
    def timeouts(self) -> Timeouts:
        """How long silences of its links are tolerated."""
        return self._standing.timeouts

    def story(self) -> str:
        """Epoch and round, for log lines."""
        epoch = self.view.epoch if self.view else 0
        return f"epoch {epoch} round {max(self.permits.begun, 0)}"

    def step(self, now: float, event: Event) -> list[Action]:
        """Take one event in; what must be done comes out, in order."""
        actions: list[Action] = []
        self.take(now, event, actions.append)
        return actions

    def take(self, now: float, event: Event, do: Callable[[Action], object]) -> None:
        """The same, but each thing is done as soon as it is decided.

        Others get on with what they are told while this peer looks what else there is to do.

        Args:
            now: seconds, monotonic.
            event: what has happened.
            do: takes each action in turn; must not come back with an event before the end.
        """
        standing = self._standing
        standing.now, standing.do = now, do
        if self.role is Role.OUT and not isinstance(event, FromWorker | WorkerGone | Tick):
            return
        if isinstance(event, Heard) and isinstance(event.message, Status):
            self._measure(event.sender, event.message)
        if isinstance(event, Heard) and self._hearing.nothing_new(event.sender, event.message):
            self._evidence.heard(now, event.sender)
            return
        match event:
            case Linked(member=member):
                self._on_linked(member)
            case Unlinked(uid=uid, reason=reason, unsent=unsent):
                self._on_unlinked(uid, reason)
                standing.send_again(uid, unsent)
            case ProcessGone(uid=uid):
                self._evidence.declare_dead(uid, "its process is gone")
            case Heard(sender=sender, message=message):
                if sender in standing.linked:
                    self._evidence.heard(now, sender)
                    self._hear(sender, message)
            case Searched():
                self._arrival.searched(event)
            case FromWorker(message=local.Measured() as said):
                self._survey.measured(said)
            case Replanned():
                self._survey.worked_out(event)
            case FromWorker(message=said):
                self._service.hear(said)
            case WorkerGone(reason=reason):
                self._service.gone(reason)
            case Tick(late_s=late_s):
                self._on_tick(late_s)
        if not self._can_wait(event):
            self._after()

    def _can_wait(self, event: Event) -> bool:
        """It was asked to agree, or got an answer, and others are due: who asks waits for that.

        What else there may be to do is done with the next tick.
        """
        change = self._agreement.lead.proposer.change
        match event:
            case Heard(message=Prepare()):
                return change is None
            case Heard(message=Ack()) | FromWorker(message=local.Frozen()):
                return change is None or bool(change.missing)
        return False

    def _measure(self, sender: Uid, status: Status) -> None:
        """A heartbeat came straight from a neighbour."""
        standing = self._standing
        trip = standing.trips.heard(standing.now, sender, status.sent, status.echo)
        if trip is not None and (problem := standing.timeouts.measured(sender, trip)):
            standing.log(problem, Level.WARNING)

    def _hear(self, sender: Uid, message: AnyMessage) -> None:
        self._hearing.hear(sender, message)

    # ---- links -----------------------------------------------------------------------------

    def _on_linked(self, member: Member) -> None:
        standing = self._standing
        standing.linked[member.uid] = member
        self._evidence.linked(standing.now, member.uid)
        standing.beat(member.uid)
        if standing.view is not None and standing.view.find(member.uid) is None:
            self._survey.show(member.uid)
            standing.send(member.uid, ViewNews(standing.view))
        for uid, reason in self._evidence.dead.items():
            if standing.view is not None and standing.view.find(uid) is not None:
                standing.send(member.uid, LastWord(uid, reason))
        self._arrival.met(member)

    def _on_unlinked(self, uid: Uid, reason: str) -> None:
        member = self._standing.linked.pop(uid, None)
        self._standing.statuses.pop(uid, None)
        self._standing.forget_strangers()
        if member is not None and member.port == 0:
            self._evidence.forget(uid)  # a visitor: no view will ever have it
        else:
            self._evidence.unlinked(uid, reason)
        self._agreement.lead.drafts.wishes.forget_newcomer(uid)
        self._arrival.lost(uid)

    # ---- time, and what follows from where we stand ----------------------------------------

    def _on_tick(self, late_s: float) -> None:
        standing = self._standing
        watched = (*self._company(), *self._requests.leavers)
        for uid in self._evidence.tick(standing.now, watched, late_s):
            if uid in standing.linked:
                standing.do(Redial(uid, self._evidence.why(uid)))
        if standing.now - self._sent_status_at >= standing.timeouts.beat_s:
            self._sent_status_at = standing.now
            standing.beat()
        self._arrival.tick()
        self._requests.check_pull()
        self._agreement.check_freeze()
        self._agreement.check_superseded()
        self._service.tick()
        self._survey.tick()

    def _company(self) -> Collection[Uid]:
        """Those who must not be silent: for them it waits, or they found the run with it."""
        standing = self._standing
        if standing.role is Role.OUT:
            return ()
        if standing.view is not None:
            return standing.view.everybody
        return [m.uid for m in standing.linked.values() if m.port != 0]

    def _after(self) -> None:
        standing = self._standing
        self._arrival.check()
        if self.searching:
            self._service.wait(self._arrival.waiting, self._arrival.hint)
        elif self.role in (Role.NEWCOMER, Role.LEARNER):
            self._service.wait(self._requests.waiting)
        self._requests.say()
        if standing.view is not None and standing.role in _WITHIN:
            self._agreement.say_unreachable(standing.view)
        if standing.view is not None and standing.active:
            self._service.check_all_done(standing.view)
            if standing.finished < 0:
                waiting = self._agreement.run_lead()
                if standing.active:
                    self._service.wait(waiting)
        if standing.view is not None and standing.active:
            self._service.grant(standing.view)
        self._arrival.check_islands()
