"""A worker without torch, sockets or processes: the real exchange, and obedience.

It does what :class:`lightning_chaos.worker.station.Station` and training do: begins rounds with
a permit, runs operations, freezes, recovers by a decision, holds for learners, pulls, leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import numpy as np

from lightning_chaos.collective.actions import (
    AskCommit,
    Failed,
    Finished,
    Misbehaved,
    Purge,
    Resume,
    Send,
    Stable,
)
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.data.ledger import Ledger, Slice, commit, share_out
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import Decision, Member, OpId, Uid, View
from lightning_chaos.worker.turns import Sharers

BATCH = 2
SIZE = 1_000_000
PART_BOUND_S = 5.0
"""How long a leaver waits for the others to let go, and a finished one for all to finish."""

Entry = tuple[tuple[Uid, ...], str]
"""Of a finished operation: who contributed, and a digest of all it gave."""


class Header(msgspec.Struct, frozen=True):
    """A member's part of a round."""

    slices: Slice
    stop: bool


class Surroundings(Protocol):
    """What a worker needs of the world."""

    now: float
    stop_asked: bool
    on_send: Callable[[str, str, str], None]

    def after(self, seconds: float, work: Callable[[], None]) -> None: ...
    def uniform(self, low: float, high: float) -> float: ...
    def stable(self, worker: Worker, op: OpId) -> None: ...
    def fail(self, text: str) -> None: ...
    def frames_out(self, worker: Worker, send: Send) -> None: ...
    def resume(self, worker: Worker) -> None: ...
    def purge(self, worker: Worker) -> None: ...
    def meet(self, worker: Worker) -> None: ...
    def reaches(self, worker: Worker, uid: Uid) -> bool: ...
    def donors(self, worker: Worker, view: View) -> list[Worker]: ...
    def let_go(self, worker: Worker, view: View) -> bool: ...
    def tell_peer(self, worker: Worker, message: local.AnyLocal) -> None: ...
    def come_back(self, worker: Worker) -> None: ...
    def end(self, worker: Worker) -> None: ...


class Worker:
    """The training process of one incarnation."""

    def __init__(self, me: Member, world: Surroundings) -> None:
        self.me, self.uid, self.world = me, me.uid, world
        self.exchange = Exchange(me.uid, lambda: world.now)
        self.view: View | None = None
        self.ledger = Ledger(0, 0, SIZE)
        self.history: dict[OpId, Entry] = {}
        self.begun = -1
        self.permit = -1
        self.apart = ""
        self.doing = "starting"
        self.hung_until = 0.0
        self.leaving = self.all_done = self.ended = False
        self.sharers: Sharers | None = None
        self._op: OpId | None = None
        self._slice: Slice = ()
        self._stopping = False
        self.hold_epoch = 0
        self._learning: View | None = None
        self._leavers: dict[Uid, int] = {}
        self._mail: list[Callable[[], None]] = []

    def say(self, message: Any) -> None:
        """To the peer."""
        if not self.apart:
            self.world.tell_peer(self, message)

    # ---- from the peer ---------------------------------------------------------------------

    def hear(self, message: local.Local) -> None:
        """A message of the peer, late if this worker is stopped."""
        if self.ended:
            return
        if self.hung_until > self.world.now or self._mail:
            self._mail.append(lambda: self._hear(message))
        else:
            self._hear(message)

    def hang(self, seconds: float) -> None:
        """SIGSTOP for so long."""
        self.hung_until = max(self.hung_until, self.world.now + seconds)
        self.world.after(seconds + 0.001, self._wake)

    def _wake(self) -> None:
        if self.hung_until > self.world.now or self.ended:
            return
        mail, self._mail = self._mail, []
        for work in mail:
            work()
        self.world.resume(self)
        self.poll()

    def works_with(self, uid: Uid) -> bool:
        """It has left as planned, but its contributions are still needed."""
        left = self.view is not None and self.view.find(uid) is None
        return left and self.begun < self._leavers.get(uid, -1)

    @property
    def hung(self) -> bool:
        """It is stopped at present."""
        return self.hung_until > self.world.now

    def _hear(self, message: local.Local) -> None:
        match message:
            case local.Standing(view=view, newcomer=newcomer):
                self.view, self.doing = view, "newcomer" if newcomer else "between"
                if not newcomer:
                    self.sharers = Sharers(0, view.uids)
                    self.exchange.install(view, None)
                self.say(local.AskSeat((("model", "m"),)))
            case local.Permit(upto=upto):
                self.permit = max(self.permit, upto)
            case local.Freeze(ballot=ballot):
                self.exchange.freeze()
                self._carry_out()
                report = self.exchange.report(self.begun)
                self.say(local.Frozen(ballot, report))
            case local.Install(view=view, decision=decision):
                self._install(view, decision)
            case local.Removed(reason=reason) | local.Refused(reason=reason):
                self.part(reason)
            case local.RunOver():
                self.world.end(self)
            case local.AllDone():
                self.all_done = True
            case _:
                pass
        self.poll()

    def part(self, reason: str) -> None:
        """This incarnation is out."""
        if self.apart or self.ended:
            return
        self.apart = reason
        if self.view is not None:
            self.exchange.freeze()
            self._carry_out()
        if self.leaving:
            self.world.end(self)
        else:
            self.world.come_back(self)

    def _install(self, view: View, decision: Decision | None) -> None:
        known = self.view.learners if self.view else ()
        if any(learner not in known for learner in view.learners):
            self.hold_epoch = view.epoch
        if decision is None and self.view is not None:
            gone = (uid for uid in self.view.uids if view.find(uid) is None)
            self._leavers.update(dict.fromkeys(gone, view.switch))
        self.view = view
        self.exchange.install(view, decision)
        if self.sharers is not None:
            self.sharers.step(decision.data_from if decision else view.switch, view.uids)
        elif decision is not None and decision.finished < self.exchange.last:
            self.part("what it pulled was done again after a donor was lost")
            return
        self._carry_out()
        self.world.meet(self)
        if view.rank(self.uid) is None and view.find(self.uid) is not None:
            if self.doing == "newcomer":
                self.doing, self._learning = "pulling", view
                self.world.after(0.02, self._pull)
        elif self.doing == "pulled" and view.rank(self.uid) is not None:
            self.sharers = Sharers(view.switch, view.uids)
            self.doing = "between"

    # ---- joining ---------------------------------------------------------------------------

    def _pull(self) -> None:
        """Copy a donor that holds; again and again until there is one."""
        view = self.view
        if self.apart or self.ended or view is None or self._learning is None:
            return
        donors = [] if self.hung else self.world.donors(self, self._learning)
        if not donors or self.world.uniform(0, 1) < 0.3:
            self.world.after(0.05, self._pull)
            if donors:
                self.say(local.Pulling(1, 2))
            return
        donor = donors[0]
        self.world.on_send("Pull", donor.me.node, self.me.node)
        self.history, self.ledger = dict(donor.history), donor.ledger
        self.exchange.start(donor.exchange.last)
        self.begun, self.doing = donor.begun, "linking"
        if self.begun != view.switch - 1:
            self.world.fail(f"{self.uid} pulled round {self.begun + 1}, its seat is {view.switch}")
        self._when_linked()

    def _when_linked(self) -> None:
        view = self.view
        if self.apart or self.ended or view is None:
            return
        if self.hung or not all(self.world.reaches(self, u) for u in view.uids if u != self.uid):
            self.world.after(0.05, self._when_linked)
            return
        self.doing = "pulled"
        self.say(local.Pulled(view.epoch, view.switch))

    @property
    def holds(self) -> View | None:
        """The view for whose learners this worker stands still, if it does."""
        view = self.view
        between = self.doing == "between" and not self.apart and not self.ended
        if not between or self.hung or view is None or view.rank(self.uid) is None:
            return None
        return view if view.learners and view.switch <= self.begun + 1 else None

    # ---- rounds ----------------------------------------------------------------------------

    def poll(self) -> None:
        """Begin the next round if that is allowed now."""
        view = self.view
        if self.doing != "between" or self.apart or self.ended or self.hung or view is None:
            return
        round_ = self.begun + 1
        if self._stopping:
            self.doing = "done"
            self.say(local.Done(self.begun))
            self._wait_for_all(self.world.now + PART_BOUND_S)
        elif self._may_go(view, round_):
            self._go(view)
        elif self.holds is None and self.permit >= round_ and not self.exchange.frozen:
            self._begin(round_)

    def _may_go(self, view: View, round_: int) -> bool:
        alone = self.leaving and view.uids == (self.uid,)
        return alone or (view.rank(self.uid) is None and view.switch <= round_)

    def _begin(self, round_: int) -> None:
        assert self.sharers is not None
        self.begun = round_
        self.sharers.forget_before(round_)
        self.say(local.Begun(round_))
        sharers = self.sharers.at(round_)
        if self.uid not in sharers:
            self.world.fail(f"{self.uid} begins round {round_}, shared out among {sharers}")
            return
        slices = share_out(self.ledger, BATCH, len(sharers))
        self._slice = slices[sharers.index(self.uid)]
        self.doing = "computing"
        self.world.after(self.world.uniform(0.02, 0.3), lambda: self._operate(OpId(round_, 0)))

    def _operate(self, op: OpId) -> None:
        if self.ended or self.apart:
            return
        if self.hung:
            self._mail.append(lambda: self._operate(op))
            return
        self.doing, self._op = "operating", op
        header = Header(self._slice, self.world.stop_asked)
        vector = np.full(3, len(self.uid) + op.round, np.float32) if op.k == 0 else None
        self.exchange.begin(op, "op", msgspec.json.encode(header), vector, 1.0)
        self._carry_out()

    def carry_out(self) -> None:
        """After frames came in."""
        self._carry_out()

    def _carry_out(self) -> None:
        for action in self.exchange.actions():
            match action:
                case Send():
                    self.world.frames_out(self, action)
                case Finished():
                    self._on_finished(action)
                case Stable(op=op):
                    self.world.stable(self, op)
                case Failed(op=op, error=error):
                    self.world.fail(f"{self.uid}: operation {op} failed: {error}")
                case AskCommit(uid=uid, epoch=epoch):
                    self.say(local.SawEpoch(uid, epoch))
                case Misbehaved(uid=uid, reason=reason):
                    self.world.fail(f"{self.uid} accuses {uid}: {reason}")
                case Resume():
                    self.world.resume(self)
                case Purge():
                    self.world.purge(self)

    def _on_finished(self, done: Finished) -> None:
        result = b"" if done.result is None else done.result.tobytes()
        digest = hashlib.sha256(b"|".join((*done.blobs, result))).hexdigest()[:8]
        self.history[done.op] = (done.members, digest)
        headers = [msgspec.json.decode(blob, type=Header) for blob in done.blobs]
        if done.op.k == 0:
            self.ledger = commit(self.ledger, [r for h in headers for r in [h.slices]])
            self._stopping = any(h.stop for h in headers)
        round_, more = done.op.round, done.op.round % 3 == 0 or self._stopping
        if self.apart:
            return
        if done.op.k == 0 and more:
            self.doing = "computing"
            later = self.world.uniform(0.0, 0.05)
            self.world.after(later, lambda: self._operate(OpId(round_, 1)))
        else:
            self.doing = "between"
            self.world.after(0.001, self.poll)

    # ---- ending ----------------------------------------------------------------------------

    def leave(self) -> None:
        """SIGTERM."""
        if not self.leaving and not self.apart and not self.ended and self.view is not None:
            self.leaving = True
            self.say(local.Leaving())
            self.poll()

    def _go(self, view: View) -> None:
        self.doing = "gone"
        self._wait_to_part(view, self.world.now + PART_BOUND_S)

    def _wait_to_part(self, view: View, until: float) -> None:
        if self.ended or self.world.now > until or self.world.let_go(self, view):
            self.world.end(self)
        else:
            self.world.after(0.05, lambda: self._wait_to_part(view, until))

    def _wait_for_all(self, until: float) -> None:
        if self.ended or self.apart:
            return
        if self.all_done or self.world.now > until:
            self.all_done = True
            self.world.end(self)
        else:
            self.world.after(0.05, lambda: self._wait_for_all(until))
