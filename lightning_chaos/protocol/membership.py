"""The state machine of one peer: events in, actions out (design §4).

Everything that happens to one incarnation of a node goes through :meth:`Membership.step`.  It
hands events and messages to the parts, which share a :class:`~.standing.Standing`: how it gets
to know the run (:mod:`arrival`), what it asks for (:mod:`requests`), how views change
(:mod:`agreement`) and what its worker may do (:mod:`service`).  Below them: who founds
(:mod:`founding`), who is reachable (:mod:`evidence`), how far the worker may run
(:mod:`permits`), what was promised (:mod:`acceptor`), what a lead proposes (:mod:`lead`,
:mod:`wishes`, :mod:`change`), what counts as agreement (:mod:`quorum`) and what frozen workers
do next (:mod:`flush`).
"""

from __future__ import annotations

import msgspec

from lightning_chaos.errors import WireError
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
    Searched,
    Tick,
    Unlinked,
    WorkerGone,
)
from lightning_chaos.protocol.messages import (
    Abort,
    Accept,
    Ack,
    AnyMessage,
    AskCommit,
    Carry,
    Commit,
    FlushRequest,
    Introduce,
    JoinReady,
    JoinRequest,
    LastWord,
    LeaveRequest,
    Nack,
    Offer,
    Prepare,
    Refuse,
    Status,
    StopRequest,
    Unreachable,
    ViewNews,
    Withdraw,
    decode,
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
        base_epoch: int = 0,
        generation: int = 0,
        guarded: bool = False,
        alone: bool = False,
    ) -> None:
        self.me = me
        self._standing = Standing(me, run, timeout_s, worker_timeout_s, self._on_message, alone)
        self._arrival = Arrival(
            self._standing, min_members, base_epoch, generation, guarded=guarded
        )
        self._requests = Requests(self._standing)
        self._agreement = Agreement(self._standing, self._requests)
        self._service = Service(
            self._standing,
            self._requests,
            self._agreement,
            min_members=min_members,
            linger_s=linger_s,
        )
        self._lead = self._agreement.lead
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
    def candidates(self) -> int:
        """How many are here to found a run, if there is none, this node included."""
        return 1 + len(self._standing.linked)

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
        standing = self._standing
        standing.now, standing.out = now, []
        if self.role is Role.OUT and not isinstance(event, FromWorker | WorkerGone | Tick):
            return []
        if isinstance(event, Heard) and isinstance(event.message, Status):
            self._measure(event.sender, event.message)
        if isinstance(event, Heard) and self._says_nothing_new(event):
            self._evidence.heard(now, event.sender)
            return standing.out
        match event:
            case Linked(member=member):
                self._on_linked(member)
            case Unlinked(uid=uid, reason=reason):
                self._on_unlinked(uid, reason)
            case ProcessGone(uid=uid):
                self._evidence.declare_dead(uid, "its process is gone")
            case Heard(sender=sender, message=message):
                if sender in standing.linked:
                    self._evidence.heard(now, sender)
                    self._on_message(sender, message)
            case Searched(exclusive=exclusive, problem=problem):
                self._arrival.searched(exclusive, problem)
            case FromWorker(message=said):
                self._service.hear(said)
            case WorkerGone(reason=reason):
                self._service.gone(reason)
            case Tick(late_s=late_s):
                self._on_tick(late_s)
        self._after()
        return standing.out

    def _measure(self, sender: Uid, status: Status) -> None:
        """A heartbeat came straight from a neighbour."""
        standing = self._standing
        trip = standing.trips.heard(standing.now, sender, status.sent, status.echo)
        if trip is not None and (problem := standing.timeouts.measured(sender, trip)):
            standing.log(problem, Level.WARNING)

    def _says_nothing_new(self, event: Heard) -> bool:
        """A heartbeat that tells a member no more than the one before but the round.

        Most of what comes in is that, and nothing that a member does depends on others' rounds.
        """
        status, sender, view = event.message, event.sender, self.view
        if not isinstance(status, Status) or self.role is not Role.MEMBER or view is None:
            return False
        before = self._standing.statuses.get(sender)
        if before is None or self._evidence.silent(sender) or status.epoch != view.epoch:
            return False
        self._standing.statuses[sender] = status
        same = (before.epoch, before.finished) == (status.epoch, status.finished)
        return same and self._evidence.told(sender, status.unreachable)

    # ---- links -----------------------------------------------------------------------------

    def _on_linked(self, member: Member) -> None:
        standing = self._standing
        standing.linked[member.uid] = member
        self._evidence.linked(standing.now, member.uid)
        standing.beat(member.uid)
        if standing.view is not None and standing.view.find(member.uid) is None:
            standing.send(member.uid, ViewNews(standing.view))
        for uid, reason in self._evidence.dead.items():
            if standing.view is not None and standing.view.find(uid) is not None:
                standing.send(member.uid, LastWord(uid, reason))
        self._arrival.met(member)

    def _on_unlinked(self, uid: Uid, reason: str) -> None:
        self._standing.linked.pop(uid, None)
        self._standing.statuses.pop(uid, None)
        self._standing.forget_strangers()
        self._evidence.unlinked(uid, reason)
        self._lead.wishes.forget_newcomer(uid)
        self._arrival.lost(uid)

    # ---- messages --------------------------------------------------------------------------

    def _on_message(self, sender: Uid, message: AnyMessage) -> None:
        match message:
            case Status():
                self._on_status(sender, message)
            case ViewNews(view=view):
                self._arrival.news(sender, view)
            case Offer() | Accept() | Withdraw():
                self._arrival.heard(sender, message)
            case Introduce(members=members):
                self._arrival.introduced(members)
            case Refuse(reason=reason, setting=setting):
                if self.role is Role.NEWCOMER:
                    self._standing.role = Role.OUT
                    self._standing.tell(local.Refused(reason, setting))
            case JoinRequest() | JoinReady() | LeaveRequest() | FlushRequest():
                if self._standing.active:
                    self._on_request(sender, message)
            case Unreachable(epoch=epoch, uids=uids):
                self._on_unreachable(sender, epoch, uids)
            case LastWord(uid=uid, reason=reason):
                self._on_last_word(sender, uid, reason)
            case Prepare():
                self._agreement.on_prepare(sender, message)
            case Ack():
                self._agreement.on_ack(sender, message)
            case Nack():
                self._agreement.on_nack(sender, message)
            case Commit():
                self._on_commit(sender, message)
            case Abort(ballot=ballot):
                self._standing.acceptor.abort(ballot)
            case AskCommit(epoch=epoch):
                self._agreement.pass_commit(sender, epoch)
            case Carry():
                self._on_carry(sender, message)
            case StopRequest(reason=reason):
                self._standing.tell(local.Stop(reason))
            case _:
                pass

    def _on_carry(self, hop: Uid, carry: Carry) -> None:
        """Take in what is for this peer; pass on what is not."""
        standing = self._standing
        if carry.origin == self.me.uid:
            return
        standing.routes.came(carry.origin, hop)
        if carry.to != self.me.uid:
            further = standing.hop(carry.to)
            if further is not None and further != hop and carry.hops > 1:
                standing.pass_on(further, msgspec.structs.replace(carry, hops=carry.hops - 1))
            return
        try:
            message = decode(carry.content)
        except WireError as error:
            standing.log(f"{hop} passed on what is no message: {error}", Level.WARNING)
            return
        if not isinstance(message, Carry):
            self._evidence.carried(standing.now, carry.origin)
            self._on_message(carry.origin, message)

    def _on_request(
        self, sender: Uid, message: JoinRequest | JoinReady | LeaveRequest | FlushRequest
    ) -> None:
        wishes = self._lead.wishes
        match message:
            case JoinRequest(member=member, unreachable=uids):
                self._evidence.others_say(self._standing.now, member.uid, uids)
                wishes.join(self._standing.now, message)
            case JoinReady(round=round_):
                wishes.learner_ready(sender, round_)
            case LeaveRequest(uid=uid):
                wishes.leave(uid)
            case FlushRequest(epoch=epoch, reason=reason):
                if self.view and epoch == self.view.epoch:
                    self._lead.want_flush(reason)

    def _on_status(self, sender: Uid, status: Status) -> None:
        standing, view = self._standing, self._standing.view
        standing.statuses[sender] = status
        outside = (Role.SEARCHING, Role.NEWCOMER, Role.LEARNER)
        if status.finished >= 0 and self.role in outside:
            standing.role = Role.OUT
            standing.tell(local.RunOver(status.finished))
        elif view is not None and view.find(sender) is None and standing.islands.has(sender):
            return  # its epochs are of another lineage
        elif view is not None and status.epoch > view.epoch:
            standing.send(sender, AskCommit(status.epoch))
        else:
            self._on_unreachable(sender, status.epoch, status.unreachable)

    def _on_unreachable(self, sender: Uid, epoch: int, uids: tuple[Uid, ...]) -> None:
        if self.view and epoch == self.view.epoch:
            self._evidence.others_say(self._standing.now, sender, uids)

    def _on_commit(self, sender: Uid, commit: Commit) -> None:
        view = commit.proposal.view
        if self.view is None or (self._standing.foreign(view) and not self._admits(view)):
            self._arrival.news(sender, view)
        else:
            self._agreement.install(commit)

    def _admits(self, view: View) -> bool:
        """A view of another lineage that gives this newcomer a place."""
        return self.role is Role.NEWCOMER and view.find(self.me.uid) is not None

    def _on_last_word(self, sender: Uid, uid: Uid, reason: str) -> None:
        if uid == self.me.uid:
            return
        known = uid in self._evidence.dead
        self._evidence.declare_dead(uid, reason)
        if sender == uid and not known:
            self._standing.log(f"{uid} said its last word: {reason}")
            # Not everybody may have heard it, and it cannot be asked again.
            for other in self._standing.linked:
                if other != uid:
                    self._standing.send(other, LastWord(uid, reason))

    # ---- time, and what follows from where we stand ----------------------------------------

    def _on_tick(self, late_s: float) -> None:
        standing = self._standing
        within = standing.view is not None and standing.role in _WITHIN
        watched = standing.view.everybody if standing.view is not None and within else ()
        watched = (*watched, *self._requests.leavers)
        for uid in self._evidence.tick(standing.now, watched, late_s):
            if uid in standing.linked:
                standing.out.append(Redial(uid, self._evidence.why(uid)))
        if standing.now - self._sent_status_at >= standing.timeouts.beat_s:
            self._sent_status_at = standing.now
            standing.beat()
        self._arrival.tick()
        self._requests.check_pull()
        self._agreement.check_freeze()
        self._agreement.check_superseded()
        self._service.tick()

    def _after(self) -> None:
        standing = self._standing
        self._arrival.check()
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
