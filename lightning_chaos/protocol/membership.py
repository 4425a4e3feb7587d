"""The state machine of one peer: events in, actions out (design §4).

Everything that happens to one incarnation of a node goes through :meth:`Membership.step`.  The
parts live beside it: who founds (:mod:`founding`), who is reachable (:mod:`evidence`), how far
the worker may run (:mod:`permits`), what was promised (:mod:`acceptor`), the proposal that is
open (:mod:`change`), what counts as agreement (:mod:`quorum`) and what frozen workers do next
(:mod:`flush`).
"""

from __future__ import annotations

import enum

from lightning_chaos.planning.values import mesh_plan
from lightning_chaos.protocol import local
from lightning_chaos.protocol.acceptor import Acceptor
from lightning_chaos.protocol.events import (
    Action,
    Connect,
    Event,
    FromWorker,
    Hangup,
    Heard,
    Level,
    Linked,
    Log,
    ProcessGone,
    Quit,
    Searched,
    Send,
    Tell,
    Tick,
    Unlinked,
    WorkerGone,
)
from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.founding import Founding
from lightning_chaos.protocol.lead import Lead
from lightning_chaos.protocol.messages import (
    Abort,
    Accept,
    Ack,
    AnyMessage,
    AskCommit,
    Commit,
    FlushRequest,
    JoinReady,
    JoinRequest,
    LastWord,
    LeaveRequest,
    Message,
    Nack,
    Offer,
    Prepare,
    Refuse,
    Status,
    StopRequest,
    Unreachable,
    ViewNews,
    Withdraw,
)
from lightning_chaos.protocol.permits import Permits
from lightning_chaos.protocol.values import Member, Uid, View


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


class Membership:
    """One peer's part in the run.

    Args:
        me: this incarnation.
        run: id of the run; links to other runs never reach this class.
        min_members: members needed before the first round may start.
        timeout_s: longest silence tolerated, seconds.
        worker_timeout_s: longest time a worker may take to freeze or to make progress, seconds.
        linger_s: how long a finished run is told to latecomers, seconds.
    """

    def __init__(
        self,
        me: Member,
        *,
        run: str,
        min_members: int = 1,
        timeout_s: float = 1.0,
        worker_timeout_s: float = 300.0,
        linger_s: float = 30.0,
    ) -> None:
        self.me = me
        self.run = run
        self.role = Role.SEARCHING
        self._view: View | None = None
        self._commit: Commit | None = None
        self._min_members = min_members
        self._timeout_s = timeout_s
        self._worker_timeout_s = worker_timeout_s
        self._linger_s = linger_s
        self._now = 0.0
        self._out: list[Action] = []
        self._linked: dict[Uid, Member] = {}
        self._statuses: dict[Uid, Status] = {}
        self._founding = Founding(me.uid, min_members)
        self._evidence = Evidence(me.uid, timeout_s)
        self._permits = Permits()
        self._acceptor = Acceptor(me.uid)
        self._lead = Lead(me.uid, timeout_s)
        self._seat: local.AskSeat | None = None
        self._ready: JoinReady | None = None
        self._leaving = False
        self._finished = -1
        self._all_done = False
        self._worker_gone_at: float | None = None
        self._quit = False
        self._progress_at = 0.0
        self._sent_status_at = float("-inf")
        self._asked_at = float("-inf")
        self._said_unreachable: tuple[Uid, ...] = ()
        self._waiting = ""
        self._search_problem_at: float | None = None

    # ---- face ------------------------------------------------------------------------------

    @property
    def searching(self) -> bool:
        """True until this node founded the run, found it or gave up."""
        return self.role is Role.SEARCHING

    @property
    def view(self) -> View | None:
        """The view installed, or the one a newcomer has been told."""
        return self._view

    @property
    def permits(self) -> Permits:
        """How far this node's worker may run."""
        return self._permits

    def story(self) -> str:
        """Epoch and round, for log lines."""
        epoch = self._view.epoch if self._view else 0
        return f"epoch {epoch} round {max(self._permits.begun, 0)}"

    def step(self, now: float, event: Event) -> list[Action]:
        """Take one event in; what must be done comes out, in order."""
        self._now = now
        self._out = []
        if self.role is Role.OUT and not isinstance(event, FromWorker | WorkerGone | Tick):
            return []
        match event:
            case Linked(member=member):
                self._on_linked(member)
            case Unlinked(uid=uid, reason=reason):
                self._on_unlinked(uid, reason)
            case ProcessGone(uid=uid):
                self._evidence.declare_dead(uid, "its process is gone")
            case Heard(sender=sender, message=message):
                if sender in self._linked:
                    self._evidence.heard(now, sender)
                    self._on_message(sender, message)
            case Searched(exclusive=exclusive, problem=problem):
                self._on_searched(exclusive, problem)
            case FromWorker(message=said):
                self._on_worker(said)
            case WorkerGone(reason=reason):
                self._on_worker_gone(reason)
            case Tick():
                self._on_tick()
        self._after()
        return self._out

    # ---- small helpers ---------------------------------------------------------------------

    def _send(self, to: Uid, message: Message) -> None:
        if to == self.me.uid:
            self._on_message(to, message)  # type: ignore[arg-type]
        elif to in self._linked:
            self._out.append(Send(to, message))

    def _send_all(self, message: Message) -> None:
        for uid in self._linked:
            self._send(uid, message)

    def _tell(self, message: local.Local) -> None:
        self._out.append(Tell(message))

    def _log(self, text: str, level: Level = Level.INFO) -> None:
        self._out.append(Log(level, text))

    @property
    def _active(self) -> bool:
        return self.role in (Role.MEMBER, Role.LEAVING)

    # ---- links -----------------------------------------------------------------------------

    def _on_linked(self, member: Member) -> None:
        self._linked[member.uid] = member
        self._evidence.linked(self._now, member.uid)
        self._send_status(member.uid)
        self._supersede(member)
        if self._view is not None and self._view.find(member.uid) is None:
            self._send(member.uid, ViewNews(self._view))
        if self.role is Role.SEARCHING:
            self._out += self._founding.met(member.uid)

    def _on_unlinked(self, uid: Uid, reason: str) -> None:
        self._linked.pop(uid, None)
        self._statuses.pop(uid, None)
        self._evidence.unlinked(uid, reason)
        self._lead.forget_newcomer(uid)
        if self.role is Role.SEARCHING:
            self._out += self._founding.lost(uid)

    def _supersede(self, member: Member) -> None:
        """A newer incarnation of a node speaks: older ones vote no more."""
        if self._view is None:
            return
        for old in (*self._view.members, *self._view.learners):
            older = old.node == member.node and old.incarnation < member.incarnation
            if older and old.uid not in self._linked and old.uid != self.me.uid:
                self._evidence.declare_dead(old.uid, "a newer incarnation of it speaks")

    # ---- search ----------------------------------------------------------------------------

    def _on_searched(self, exclusive: bool, problem: str) -> None:
        if self.role is not Role.SEARCHING:
            return
        if problem:
            self._give_up(problem)
        elif exclusive and not self._linked:
            self._found()
        elif exclusive:
            # Whoever is linked is of the run and will tell its view; if not, that is a problem.
            self._search_problem_at = self._now + 10 * self._timeout_s
        else:
            self._out += self._founding.open()

    def _give_up(self, reason: str) -> None:
        self.role = Role.OUT
        self._tell(local.Refused(reason))

    def _found(self) -> None:
        view = View(self.run, 0, 1, (self.me,), (), 0, mesh_plan(1))
        self._view, self.role = view, Role.MEMBER
        self._log("founded the run")
        self._tell(local.Standing(self.me, False, view, -1))
        self._send_all(ViewNews(view))

    def _on_view_news(self, view: View) -> None:
        if self.role is Role.SEARCHING:
            self.role, self._view = Role.NEWCOMER, view
            round_ = max((s.round for s in self._statuses.values()), default=-1)
            self._log(f"found the run with {len(view.members)} members in epoch {view.epoch}")
            self._tell(local.Standing(self.me, True, view, round_))
            self._connect_all(view)
        elif self.role is Role.NEWCOMER and self._view and view.epoch > self._view.epoch:
            self._view = view
            self._connect_all(view)

    def _connect_all(self, view: View) -> None:
        for member in (*view.members, *view.learners):
            if member.uid != self.me.uid:
                self._out.append(Connect(member))

    # ---- messages --------------------------------------------------------------------------

    def _on_message(self, sender: Uid, message: AnyMessage) -> None:
        match message:
            case Status():
                self._on_status(sender, message)
            case ViewNews(view=view):
                if view.run == self.run:
                    self._on_view_news(view)
            case Offer() | Accept() | Withdraw():
                if self.role is Role.SEARCHING:
                    self._out += self._founding.heard(sender, message)
            case Refuse(reason=reason, setting=setting):
                if self.role is Role.NEWCOMER:
                    self.role = Role.OUT
                    self._tell(local.Refused(reason, setting))
            case JoinRequest():
                if self._active:
                    self._lead.want_join(self._now, message)
            case JoinReady(round=round_):
                if self._active:
                    self._lead.learner_ready(sender, round_)
            case LeaveRequest(uid=uid):
                if self._active:
                    self._lead.want_leave(uid)
            case FlushRequest(epoch=epoch, reason=reason):
                if self._active and self._view and epoch == self._view.epoch:
                    self._lead.want_flush(reason)
            case Unreachable(epoch=epoch, uids=uids):
                if self._view and epoch == self._view.epoch:
                    self._evidence.others_say(self._now, sender, uids)
            case LastWord(uid=uid, reason=reason):
                self._on_last_word(sender, uid, reason)
            case Prepare():
                self._on_prepare(sender, message)
            case Ack():
                self._lead.on_ack(sender, message)
            case Nack():
                self._on_nack(sender, message)
            case Commit():
                self._on_commit(message)
            case Abort(ballot=ballot):
                self._acceptor.abort(ballot)
            case AskCommit(epoch=epoch):
                self._pass_commit(sender, epoch)
            case StopRequest(reason=reason):
                self._tell(local.Stop(reason))
            case _:
                pass

    def _on_status(self, sender: Uid, status: Status) -> None:
        self._statuses[sender] = status
        if status.finished >= 0 and self.role in (Role.SEARCHING, Role.NEWCOMER, Role.LEARNER):
            self.role = Role.OUT
            self._tell(local.RunOver(status.finished))
        elif self._view and self._active and status.epoch > self._view.epoch:
            self._send(sender, AskCommit(status.epoch))

    def _pass_commit(self, to: Uid, epoch: int) -> None:
        if self._commit is not None and self._commit.proposal.view.epoch >= epoch:
            self._send(to, self._commit)

    def _on_last_word(self, sender: Uid, uid: Uid, reason: str) -> None:
        if uid == self.me.uid:
            return
        known = uid in self._evidence.dead
        self._evidence.declare_dead(uid, reason)
        if sender == uid and not known:
            self._log(f"{uid} said its last word: {reason}")

    # ---- agreeing --------------------------------------------------------------------------

    def _on_prepare(self, sender: Uid, message: Prepare) -> None:
        if self._view is None or self.role not in (Role.MEMBER, Role.LEAVING, Role.LEARNER):
            return
        epoch = self._view.epoch
        if message.proposal.base < epoch:
            self._pass_commit(sender, epoch)
        elif message.proposal.base > epoch:
            self._send(sender, AskCommit(message.proposal.base))
        was_freezing = self._acceptor.frozen
        answer = self._acceptor.prepare(self._now, message, epoch, self._permits.granted)
        if answer is not None:
            self._send(sender, answer)
        elif not was_freezing:
            self._tell(local.Freeze(message.proposal.ballot))

    def _on_frozen(self, said: local.Frozen) -> None:
        waiting = self._acceptor.freezing
        answer = self._acceptor.frozen_with(said.report)
        if waiting is not None and answer is not None:
            self._send(waiting.proposal.ballot.proposer, answer)

    def _on_nack(self, sender: Uid, nack: Nack) -> None:
        self._log(f"{sender} does not agree: {nack.reason}", Level.DEBUG)
        if self._view and nack.epoch < self._view.epoch:
            self._pass_commit(sender, self._view.epoch)
        self._lead.on_nack(sender, nack)

    def _on_commit(self, commit: Commit) -> None:
        view = commit.proposal.view
        if self._view is None or view.run != self.run:
            return
        if view.epoch <= self._view.epoch and self.role is not Role.NEWCOMER:
            return
        if view.epoch < self._view.epoch:
            return
        self._install(commit)

    def _install(self, commit: Commit) -> None:
        view, old = commit.proposal.view, self._view
        reason = commit.proposal.reason
        self._view, self._commit = view, commit
        self._acceptor.installed()
        self._lead.installed(view)
        self._said_unreachable = ()
        self._evidence.keep_only(tuple(m.uid for m in (*view.members, *view.learners)))
        self._log(f"epoch {view.epoch} from round {view.switch}: {_names(view)} ({reason})")
        if not self._enter(view, commit):
            return
        self._connect_all(view)
        for uid, member in self._linked.items():
            if view.find(uid) is None:
                was_in = old is not None and old.find(uid) is not None
                self._send(uid, commit if was_in else ViewNews(view))
                self._supersede(member)

    def _enter(self, view: View, commit: Commit) -> bool:
        """Take the role this view gives; False if it leaves no part in the run."""
        me = self.me.uid
        if view.rank(me) is not None:
            if self.role is Role.LEARNER:
                self._permits.enter(view.switch)
            self.role = Role.MEMBER
        elif view.find(me) is not None:
            if self.role is Role.NEWCOMER:
                self._progress_at, self._ready = self._now, None
            self.role = Role.LEARNER
        elif self.role is Role.MEMBER and self._leaving and commit.proposal.planned:
            self.role = Role.LEAVING
        elif self.role is Role.NEWCOMER:
            self._connect_all(view)
            return False
        else:
            self.role = Role.OUT
            self._tell(local.Removed(commit.proposal.reason))
            return False
        self._tell(local.Install(view, commit.decision, commit.proposal.reason))
        return True

    # ---- worker ----------------------------------------------------------------------------

    def _on_worker(self, said: local.AnyLocal) -> None:
        match said:
            case local.AskSeat():
                self._seat = said
                self._lead.fingerprint = said.fingerprint
            case local.Begun(round=round_):
                self._permits.begin(self._now, round_)
                self._evidence.settle()
                self._tell_newcomers()
            case local.Frozen():
                self._on_frozen(said)
            case local.Pulling():
                self._progress_at = self._now
            case local.Pulled(epoch=epoch, round=round_):
                self._ready = JoinReady(epoch, round_)
                self._asked_at = float("-inf")
            case local.Broken(uid=uid, reason=reason, mended=mended):
                if not mended:
                    self._evidence.complain(uid, reason)
                elif self._view is not None:
                    self._ask_members(FlushRequest(self._view.epoch, reason))
            case local.Late(uid=uid, seconds=seconds, operation=operation):
                why = f"contributed nothing to operation {operation} for {seconds:.0f} s"
                self._evidence.complain(uid, why)
            case local.SawEpoch(uid=uid, epoch=epoch):
                self._send(uid, AskCommit(epoch))
            case local.Word(uid=uid, reason=reason):
                self._evidence.declare_dead(uid, reason)
                self._send_all(LastWord(uid, reason))
            case local.Leaving():
                self._leaving = True
                self._asked_at = float("-inf")
            case local.Done(round=round_):
                self._finished = round_
                self._send_all(self._status())
            case local.Farewell(reason=reason):
                self._on_worker_gone(reason)
            case _:
                self._log(f"the worker said {type(said).__name__}", Level.DEBUG)

    def _on_worker_gone(self, reason: str) -> None:
        if self._worker_gone_at is not None:
            return
        self._worker_gone_at = self._now
        if self._finished < 0:
            self._send_all(LastWord(self.me.uid, reason))
            self.role = Role.OUT

    def _ask_members(self, message: Message) -> None:
        """Ask whoever leads: all members hear it, the lead acts on it, now or after a change."""
        if self._view is not None:
            for uid in self._view.uids:
                self._send(uid, message)

    def _tell_newcomers(self) -> None:
        if self._view is not None and len(self._linked) + 1 > len(self._view.members):
            for uid in self._linked:
                if self._view.find(uid) is None:
                    self._send_status(uid)

    # ---- time ------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        watched = self._view.uids if self._view and self._active else ()
        self._evidence.tick(self._now, watched)
        if self._now - self._sent_status_at >= self._timeout_s / 5:
            self._sent_status_at = self._now
            self._send_all(self._status())
        self._check_search()
        self._check_learner()
        self._check_freeze()
        if self._worker_gone_at is not None and not self._quit:
            waited = self._now - self._worker_gone_at
            if self._finished < 0 or waited >= self._linger_s:
                self._quit = True
                self._out.append(Quit("the worker is gone"))

    def _check_search(self) -> None:
        late = self._search_problem_at is not None and self._now > self._search_problem_at
        if self.role is Role.SEARCHING and late:
            names = ", ".join(m.node for m in self._linked.values())
            self._give_up(f"{names or 'nobody'} answered but told no view; end it or use CHAOS_RUN")

    def _check_freeze(self) -> None:
        since = self._acceptor.since
        stuck = self._acceptor.freezing is not None and since is not None
        if stuck and since is not None and self._now - since > self._worker_timeout_s:
            self._resign(f"the worker did not freeze within {self._worker_timeout_s:g} s")

    def _resign(self, reason: str) -> None:
        """Say the last word of this incarnation; the worker may come back with a new one."""
        self._send_all(LastWord(self.me.uid, reason))
        self.role = Role.OUT
        self._tell(local.Removed(reason))

    def _check_learner(self) -> None:
        if self.role is Role.LEARNER and self._now - self._progress_at > self._worker_timeout_s:
            self._resign(f"the pull made no progress for {self._worker_timeout_s:g} s")

    def _status(self) -> Status:
        epoch = self._view.epoch if self._view and self.role is not Role.NEWCOMER else 0
        return Status(epoch, self._permits.begun, self._finished, self._waiting)

    def _send_status(self, uid: Uid) -> None:
        self._send(uid, self._status())

    # ---- after every event: what follows from where we stand -------------------------------

    def _after(self) -> None:
        if self.role is Role.SEARCHING and self._founding.won:
            self._found()
        self._say_requests()
        if self._view is not None and self._active:
            self._say_unreachable(self._view)
            self._check_all_done(self._view)
            if self._finished < 0:
                self._run_lead()
        if self._view is not None and self._active:
            self._grant(self._view)

    def _say_requests(self) -> None:
        """Ask for what this node wants, again every timeout until it has it."""
        if self._now - self._asked_at < self._timeout_s:
            return
        if self.role is Role.NEWCOMER and self._seat is not None:
            furthest = max((s.round for s in self._statuses.values()), default=-1)
            if furthest >= self._seat.at_round and self._all_linked():
                self._asked_at = self._now
                self._ask_members(JoinRequest(self.me, self._seat.fingerprint))
        elif self.role is Role.LEARNER and self._ready is not None:
            self._asked_at = self._now
            self._ask_members(self._ready)
        elif self.role is Role.MEMBER and self._leaving:
            self._asked_at = self._now
            self._ask_members(LeaveRequest(self.me.uid))

    def _all_linked(self) -> bool:
        return self._view is not None and all(uid in self._linked for uid in self._view.uids)

    def _say_unreachable(self, view: View) -> None:
        mine = self._evidence.unreachable(view.uids)
        if mine != self._said_unreachable:
            self._said_unreachable = mine
            for uid in mine:
                self._log(f"cannot reach {uid}: {self._evidence.why(uid)}")
            self._evidence.others_say(self._now, self.me.uid, mine)
            for uid in view.uids:
                if uid != self.me.uid:
                    self._send(uid, Unreachable(view.epoch, mine))

    def _run_lead(self) -> None:
        """Propose, commit or wait, as the lead's rules say; several steps may follow at once."""
        for _ in range(8):
            if self._view is None or not self._active:
                return
            steps = self._lead.next_steps(
                self._now,
                self._view,
                evidence=self._evidence,
                acceptor=self._acceptor,
                permits=self._permits,
                linked=self._linked,
            )
            if self._lead.resigns:
                self._resign("it lacks results that nobody holds any more")
                return
            if not steps:
                break
            for to, message in steps:
                self._send(to, message)
                if isinstance(message, Refuse):
                    self._out.append(Hangup(to, message.reason))
        self._wait(self._lead.waiting)

    def _wait(self, reason: str) -> None:
        view = self._view
        if not reason and view is not None and self._gated(view):
            reason = f"{len(view.members)} of {self._min_members} members are here"
        if reason != self._waiting:
            self._waiting = reason
            self._tell(local.Waiting(reason))
            if reason:
                self._log(f"waiting: {reason}")

    def _gated(self, view: View) -> bool:
        return self._permits.begun < 0 and len(view.members) < self._min_members

    def _grant(self, view: View) -> None:
        if self._acceptor.frozen or self._gated(view) or self._seat is None:
            return
        limits = [self._acceptor.blocked]
        if view.learners or self.role is Role.LEAVING:
            limits.append(view.switch)
        known = [limit for limit in limits if limit is not None]
        upto = self._permits.extend(min(known) if known else None)
        if upto is not None:
            self._tell(local.Permit(upto))

    def _check_all_done(self, view: View) -> None:
        if self._finished < 0 or self._all_done:
            return
        gone = set(self._evidence.unreachable(view.uids))
        for uid in view.uids:
            status = self._statuses.get(uid)
            if uid == self.me.uid or uid in gone:
                continue
            if status is None or status.finished < 0:
                return
        self._all_done = True
        self._tell(local.AllDone())


def _names(view: View) -> str:
    names = ", ".join(m.node for m in view.members)
    learners = ", ".join(m.node for m in view.learners)
    return f"{names}; {learners} learning" if learners else names
