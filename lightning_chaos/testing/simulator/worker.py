"""A worker without torch, sockets or processes: the real exchange and course, and obedience.

It does what :class:`lightning_chaos.worker.station.Station` does: begins rounds with a permit,
freezes, recovers by a decision, stands still for learners, pulls, leaves.  What it trains is in
:mod:`~.training`, how it comes by the state of the others in :mod:`~.pull`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

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
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import Decision, Member, Uid, View
from lightning_chaos.testing.simulator.outcome import Violation
from lightning_chaos.testing.simulator.training import Doing, Training
from lightning_chaos.worker.course import Course
from lightning_chaos.worker.turns import Go, Gone, Hold

if TYPE_CHECKING:
    from lightning_chaos.testing.simulator.world import World

WORKER_TIMEOUTS = 6
"""Longest time a worker may take to freeze or to make progress, in timeouts."""
PART_BOUND_S = 5.0
"""How long a leaver waits for the others to let go, and a finished one for all to finish."""


class Worker:
    """The training process of one incarnation.

    Args:
        me: that incarnation.
        world: around it.
    """

    def __init__(self, me: Member, world: World) -> None:
        self.me, self.uid, self.world = me, me.uid, world
        self.exchange = Exchange(me.uid, lambda: world.clock.now)
        self.training = Training(self)
        self.course: Course | None = None
        """None until the search is over."""
        self.doing = Doing.STARTING
        self.apart = ""
        """Why this incarnation is out of the run."""
        self.leaving = self.all_done = self.ended = False
        self.image = 0
        """Epoch in which the newcomers came for whom a member last stood still."""
        self.place: View | None = None
        """The view that made it a learner."""
        self._hung_until = 0.0
        self._mail: list[Callable[[], None]] = []
        self._leavers: dict[Uid, int] = {}
        self._complained: set[tuple[object, Uid]] = set()

    # ---- what others see -------------------------------------------------------------------

    @property
    def view(self) -> View | None:
        """The newest view it knows."""
        return self.course.view if self.course is not None else None

    @property
    def begun(self) -> int:
        """Highest round begun."""
        return self.course.begun if self.course is not None else -1

    @property
    def hung(self) -> bool:
        """Its process is stopped at present."""
        return self._hung_until > self.world.clock.now

    @property
    def active(self) -> bool:
        """Neither ended nor out of the run."""
        return not self.ended and not self.apart

    @property
    def holds(self) -> bool:
        """It stands still for learners, and serves them."""
        if self.doing is not Doing.BETWEEN or not self.active or self.hung or not self.course:
            return False
        turn = self.course.turn(self.begun + 1, apart="", frozen=self.exchange.frozen)
        return isinstance(turn, Hold)

    def works_with(self, uid: Uid) -> bool:
        """That one has left as planned, but its contributions are still needed."""
        left = self.view is not None and self.view.find(uid) is None
        return left and self.begun < self._leavers.get(uid, -1)

    # ---- a process -------------------------------------------------------------------------

    def hang(self, seconds: float) -> None:
        """SIGSTOP for so long."""
        clock = self.world.clock
        self._hung_until = max(self._hung_until, clock.now + seconds)
        clock.after(seconds + 0.001, self._wake)

    def _wake(self) -> None:
        if self.hung or self.ended:
            return
        mail, self._mail = self._mail, []
        for work in mail:
            work()
        self.world.wires.resume(self)
        self.poll()

    def when_awake(self, work: Callable[[], None]) -> None:
        """Now, or once it is no longer stopped; never when it has ended."""
        if self.hung or self._mail:
            self._mail.append(lambda: None if self.ended else work())
        elif not self.ended:
            work()

    def say(self, message: local.AnyLocal) -> None:
        """To the peer."""
        if not self.apart:
            self.world.to_peer(self, message)

    # ---- from the peer ---------------------------------------------------------------------

    def hear(self, message: local.Local) -> None:
        """A message of the peer."""
        self.when_awake(lambda: self._hear(message))

    def _hear(self, message: local.Local) -> None:
        match message:
            case local.Standing(view=view, newcomer=newcomer):
                self.course = Course(self.uid, view, newcomer=newcomer)
                self.course.leaving = self.leaving
                self.doing = Doing.WAITING if newcomer else Doing.BETWEEN
                if not newcomer:
                    self.exchange.install(view, None)
                self.say(local.AskSeat((("model", "m"),)))
            case local.Permit(upto=upto) if self.course is not None:
                self.course.permit(upto)
            case local.Freeze(ballot=ballot):
                self.exchange.freeze()
                self.carry_out()
                self.say(local.Frozen(ballot, self.exchange.report(self.begun)))
            case local.Install(view=view, decision=decision, reason=reason):
                self._install(view, decision, reason)
            case local.Removed(reason) | local.Refused(reason) | local.GaveUp(reason):
                self.part(reason)
            case local.RunOver():
                self.world.end(self)
            case local.AllDone():
                self.all_done = True
            case _:
                pass
        self.poll()

    def part(self, reason: str) -> None:
        """This incarnation is out: it comes back as a newcomer, unless it was leaving."""
        if not self.active:
            return
        self.apart = reason
        if self.course is not None:
            self.exchange.freeze()
            self.carry_out()
        if self.leaving:
            self.world.end(self)
        else:
            self.world.come_back(self)

    def _install(self, view: View, decision: Decision | None, reason: str) -> None:
        course = self.course
        assert course is not None
        if any(learner not in course.view.learners for learner in view.learners):
            self.image = view.epoch
        if decision is None:
            gone = (uid for uid in course.view.uids if view.find(uid) is None)
            self._leavers.update(dict.fromkeys(gone, view.switch))
        course.install(view, decision, reason)
        self.exchange.install(view, decision)
        if self.outlived():
            return
        self.carry_out()
        self.world.wires.meet(self)
        if view.rank(self.uid) is None and self.doing is Doing.WAITING and view.find(self.uid):
            self.doing, self.place = Doing.PULLING, view
            self.world.learn(self)
        elif self.doing is Doing.PULLED and view.rank(self.uid) is not None:
            self.doing = Doing.BETWEEN

    def outlived(self) -> bool:
        """It pulled what the members then made anew, and is out therefore."""
        course = self.course
        if course is not None and not course.seated and course.outlived(self.exchange.last):
            self.part("what it pulled was done again after a donor was lost")
        return bool(self.apart)

    # ---- its own ways ----------------------------------------------------------------------

    def poll(self) -> None:
        """Do what may be done at the begin of a round, if it is there."""
        course = self.course
        if self.doing is not Doing.BETWEEN or not self.active or self.hung or course is None:
            return
        if self.training.stopping:
            self.doing = Doing.DONE
            self.say(local.Done(self.begun))
            self._wait_for_all(self.world.clock.now + PART_BOUND_S)
            return
        turn = course.turn(self.begun + 1, apart="", frozen=self.exchange.frozen)
        match turn:
            case Go(sharers=sharers):
                course.enter(self.begun + 1)
                self.say(local.Begun(self.begun, self.training.samples))
                self.training.begin(self.begun, sharers)
            case Gone():
                self.doing = Doing.GONE
                self._wait_to_part(course.view, self.world.clock.now + PART_BOUND_S)
            case _:
                pass

    def carry_out(self) -> None:
        """Do what the exchange asks for."""
        world = self.world
        for action in self.exchange.actions():
            match action:
                case Send():
                    world.wires.send(self, action)
                case Finished():
                    self.training.finished(action)
                case Stable(op=op):
                    world.invariants.stable(self, op)
                case Failed(op=op, error=error):
                    raise Violation(f"{self.uid}: operation {op} failed: {error}")
                case AskCommit(uid=uid, epoch=epoch):
                    self.say(local.SawEpoch(uid, epoch))
                case Misbehaved(uid=uid, reason=reason):
                    raise Violation(f"{self.uid} accuses {uid}: {reason}")
                case Resume():
                    world.wires.resume(self)
                case Purge():
                    world.wires.purge(self)

    def check_late(self) -> None:
        """Complain of members that contribute nothing to an operation for too long."""
        late = None if self.hung or not self.active else self.exchange.late()
        if late is None:
            return
        op, seconds, owing = late
        bound = WORKER_TIMEOUTS * self.world.case.timeout_s
        for uid, waits in owing.items():
            if seconds > waits * bound and (op, uid) not in self._complained:
                self._complained.add((op, uid))
                self.say(local.Late(str(op), seconds, {uid: waits}))

    def leave(self) -> None:
        """SIGTERM."""
        if not self.leaving and self.active and self.course is not None:
            self.leaving = self.course.leaving = True
            self.say(local.Leaving())
            self.poll()

    def _wait_to_part(self, view: View, until: float) -> None:
        clock = self.world.clock
        if self.ended or clock.now > until or self.world.lets_go(self, view):
            self.world.end(self)
        else:
            clock.after(0.05, lambda: self._wait_to_part(view, until))

    def _wait_for_all(self, until: float) -> None:
        if not self.active:
            return
        if self.all_done or self.world.clock.now > until:
            self.all_done = True
            self.world.end(self)
        else:
            self.world.clock.after(0.05, lambda: self._wait_for_all(until))
