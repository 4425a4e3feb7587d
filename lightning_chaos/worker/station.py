"""One incarnation of a node, on the I/O loop: its peer, exchange, links and donor.

Everything here runs on one event loop; training talks to it through
:class:`~lightning_chaos.worker.node.Node`.  A station lives as long as its peer process.  When
that dies, or the run goes on without this incarnation, the station is *apart*: it completes
nothing more, and a new one takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lightning_chaos.collective.actions import (
    AskCommit,
    Failed,
    Finished,
    Landing,
    Misbehaved,
    Purge,
    Resume,
    Send,
    Stable,
    Verdict,
)
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.collective.frames import Frame
from lightning_chaos.collective.roots import Floats
from lightning_chaos.errors import ChaosError, FingerprintError, JoinError, OperationMismatch
from lightning_chaos.monitor.runlog import RunLog
from lightning_chaos.peer.client import PeerClient, start_peer
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import Decision, Member, OpId, Uid, View
from lightning_chaos.replication.donor import Donor
from lightning_chaos.transport.dial import Dialler
from lightning_chaos.transport.door import Kind
from lightning_chaos.transport.pacer import Pacer
from lightning_chaos.worker.course import Course
from lightning_chaos.worker.mesh import Mesh
from lightning_chaos.worker.turns import Go, Hold, Outcome, Turn

log = logging.getLogger(__name__)
T = TypeVar("T")
LATE_CHECK_S = 0.5
SHOW_WAIT_S = 10.0


class RunFinished(ChaosError):
    """The run this node looked for has ended already."""

    def __init__(self, round_: int) -> None:
        super().__init__(f"the run finished after round {round_}")
        self.round = round_


@dataclass(slots=True)
class _Record:
    """What is written about an operation once it is stable."""

    op: OpId
    fields: dict[str, Any]


@dataclass(slots=True)
class Station:
    """See the module; every method is called on the loop.

    Attributes:
        config: for the peer process.
        door: the node's listening socket, handed to the peer.
        dialler: opens data and shard connections.
        dial_tls, accept_tls: contexts, None for plain bytes.
        rate_bytes_per_s: speed limit per link, None for none.
        run_log: where stable rounds and events are written.
    """

    config: PeerConfig
    door: socket.socket
    dialler: Dialler
    dial_tls: ssl.SSLContext | None
    accept_tls: ssl.SSLContext | None
    rate_bytes_per_s: float | None
    run_log: RunLog
    on_stop: Callable[[str], None]
    standing: local.Standing | None = None
    apart: str = ""
    waiting: str = ""
    peer_pid: int = 0
    all_done: bool = False
    _course: Course | None = None
    _error: ChaosError | None = None
    _peer: PeerClient | None = None
    _exchange: Exchange | None = None
    _mesh: Mesh | None = None
    _donor: Donor | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _finished: Finished | None = None
    _failed: ChaosError | None = None
    _records: list[_Record] = field(default_factory=list)
    _pacers: dict[str, Pacer] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _frozen_at: float | None = None

    # ---- life ------------------------------------------------------------------------------

    async def open(self) -> local.Standing:
        """Start the peer and wait until it has founded the run or found it.

        Raises:
            JoinError: it did neither; the message says why.
            RunFinished: the run is over.
        """
        process = start_peer(self.config, self.door)
        self.peer_pid = process.pid
        self._peer = await PeerClient.connect(
            process,
            on_message=self._on_peer,
            on_socket=self._on_socket,
            on_gone=self._on_peer_gone,
        )
        return await self._until(lambda: self.standing)

    async def aclose(self, reason: str) -> None:
        """Say goodbye, close every connection, end every task."""
        self.apart = self.apart or reason  # links that break from now on are not mended
        await self._end_tasks()
        if self._peer is not None:
            if self.all_done and self.config.linger_s > 0:
                await self._peer.release()
            else:
                self._peer.send(local.Farewell(reason))
                await self._peer.aclose()
        for part in (self._donor, self._mesh):
            if part is not None:
                await part.aclose()
        await self._end_tasks()
        self._tell()

    async def _end_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tell_peer(self, message: local.Local) -> None:
        """Send to the peer; dropped if it is gone."""
        if self._peer is not None and not self.apart:
            self._peer.send(message)

    # ---- waiting ---------------------------------------------------------------------------

    def _tell(self) -> None:
        """Something changed: whoever waits looks again."""
        self._news.set()
        self._news = asyncio.Event()

    async def _until(self, look: Callable[[], T | None]) -> T:
        while True:
            if self._error is not None:
                raise self._error
            found = look()
            if found is not None:
                return found
            await self._news.wait()

    # ---- from the peer ---------------------------------------------------------------------

    def _on_peer(self, message: local.AnyLocal) -> None:
        match message:
            case local.Standing():
                self._on_standing(message)
            case local.Permit(upto=upto):
                self.course.permit(upto)
            case local.Freeze(ballot=ballot):
                self._freeze()
                if self._exchange is not None:
                    report = self._exchange.report(self.course.begun)
                    self.tell_peer(local.Frozen(ballot, report))
            case local.Install(view=view, decision=decision, reason=reason):
                self._install(view, decision, reason)
            case local.Refused(reason=reason, setting=setting):
                self._error = FingerprintError(reason) if setting else JoinError(reason)
            case local.Removed(reason=reason):
                self.fall_out(reason)
            case local.RunOver(round=round_):
                self._error = RunFinished(round_)
            case local.AllDone():
                self.all_done = True
            case local.Stop(reason=reason):
                self.on_stop(reason)
            case local.Waiting(reason=reason):
                self.waiting = reason
            case _:
                log.debug("the peer said %s", type(message).__name__)
        self._tell()

    def _on_standing(self, standing: local.Standing) -> None:
        self.standing = standing
        me = standing.me.uid
        self._course = Course(me, standing.view, newcomer=standing.newcomer)
        self._exchange = Exchange(me, time.monotonic)
        self._mesh = Mesh(
            standing.me,
            self.config.run,
            self.config.timeout_s,
            self,
            dialler=self.dialler,
            pacer_for=self._pacer,
            dial_tls=self.dial_tls,
            accept_tls=self.accept_tls,
        )
        patience_s = self.config.worker_timeout_s
        self._donor = Donor(self.config.run, self._pacer, self.accept_tls, patience_s=patience_s)
        if not standing.newcomer:
            self._log_view(standing.view, "founded", None)
            self._exchange.install(standing.view, None)

    def _on_peer_gone(self, reason: str) -> None:
        if self.standing is None and self._error is None:
            self._error = JoinError(f"the peer process ended: {reason}")
        elif self._mesh is not None and not self.out_of_play:
            self.spawn(self._mesh.say_word(f"its peer is gone ({reason})"))
        self.fall_out(f"its peer is gone ({reason})")

    def fall_out(self, reason: str) -> None:
        """This incarnation has no part in the run any more."""
        if not self.apart:
            self.apart = reason
            if self._course is None or not self._course.alone:
                self._freeze()  # one that is alone ends the round it is in by itself
        self._tell()

    @property
    def course(self) -> Course:
        """Views and rounds of this incarnation, from the moment it knows the run."""
        assert self._course is not None
        return self._course

    @property
    def in_force(self) -> View | None:
        """The view that the present round runs under."""
        return self._course.in_force if self._course else None

    @property
    def me(self) -> Member:
        """This incarnation."""
        assert self.standing is not None
        return self.standing.me

    # ---- views -----------------------------------------------------------------------------

    def _freeze(self) -> None:
        if self._exchange is not None and not self._exchange.frozen:
            self._frozen_at = time.monotonic()
            self._exchange.freeze()
            self._carry_out()

    def _install(self, view: View, decision: Decision | None, reason: str) -> None:
        assert self._exchange is not None and self._mesh is not None
        self.run_log.write("commit", epoch=view.epoch, reason=reason, planned=decision is None)
        self._exchange.install(view, decision)
        self.course.install(view, decision, reason)
        self._check_pulled()
        if decision is not None:
            self._log_view(view, reason, decision)
        self._carry_out()
        self._mesh.meet(view)
        if decision is not None:
            self._mesh.let_go(view)

    def _log_view(self, view: View, reason: str, decision: Decision | None) -> None:
        self.run_log.write(
            "view",
            epoch=view.epoch,
            members=[m.node for m in view.members],
            uids=list(view.uids),
            learners=[m.node for m in view.learners],
            switch=view.switch,
            round=self.course.begun,
            reason=reason,
        )
        if decision is not None and self._frozen_at is not None:
            self.run_log.write(
                "freeze",
                epoch=view.epoch,
                seconds=time.monotonic() - self._frozen_at,
                reason=reason,
                redone=not decision.held,
            )
            self._frozen_at = None

    # ---- the mesh's owner ------------------------------------------------------------------

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        """See :meth:`Exchange.place`."""
        assert self._exchange is not None
        verdict = self._exchange.place(sender, frame)
        self._carry_out()
        return verdict

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        """See :meth:`Exchange.complete`."""
        assert self._exchange is not None
        self._exchange.complete(sender, frame, landing)
        self._carry_out()

    @property
    def out_of_play(self) -> bool:
        """See :class:`MeshOwner`."""
        return bool(self.apart) or self.all_done

    def links_changed(self) -> None:
        """See :class:`MeshOwner`."""
        self._tell()

    def _on_socket(self, kind: Kind, sock: socket.socket) -> None:
        if self._mesh is not None and kind is Kind.DATA:
            self._mesh.adopt(sock)
        elif self._donor is not None and kind is Kind.SHARDS:
            self.spawn(self._donor.serve(sock))
        else:
            sock.close()

    def _pacer(self, uid: Uid) -> Pacer:
        """One speed limit per link, whatever is sent on it."""
        if uid not in self._pacers:
            self._pacers[uid] = Pacer(self.rate_bytes_per_s, time.monotonic)
        return self._pacers[uid]

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a task that ends with this station; its failure ends the node."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of %s failed", self.config.node, exc_info=error)
            self._error = ChaosError(f"internal error: {error!r}")
            self._tell()

    # ---- actions of the exchange -----------------------------------------------------------

    def _carry_out(self) -> None:
        assert self._exchange is not None and self._mesh is not None
        for action in self._exchange.actions():
            match action:
                case Send():
                    self._mesh.send(action)
                case Finished():
                    self._finished = action
                    self._tell()
                case Stable(op=op):
                    self._settle(op)
                case Failed(error=error):
                    self._failed = error
                    self._tell()
                case AskCommit(uid=uid, epoch=epoch):
                    self.tell_peer(local.SawEpoch(uid, epoch))
                case Misbehaved(uid=uid, reason=reason):
                    log.warning("%s misbehaved: %s", uid, reason)
                    self.tell_peer(local.Word(uid, f"it misbehaved: {reason}"))
                case Resume():
                    self._mesh.resume()
                case Purge():
                    self._mesh.purge()

    def go_on_from(self, before: Station) -> None:
        """Alone, and founded the run anew: its last incarnation's rounds stand, as its own."""
        before.settle_all()
        self.course.begun = before.course.begun
        self.tell_peer(local.Begun(self.course.begun))

    def settle_all(self) -> None:
        """Every operation so far is stable."""
        if self._records:
            self._settle(self._records[-1].op)

    def _settle(self, op: OpId) -> None:
        """Write what was kept back until this operation was stable."""
        while self._records and self._records[0].op <= op:
            record = self._records.pop(0)
            self.run_log.write("round", **record.fields)

    # ---- training: rounds ------------------------------------------------------------------

    async def turn(self, round_: int) -> Turn:
        """What this worker may do at the begin of that round; waits until it is known."""
        turn: Turn = await self._until(lambda: self._look(round_))
        if isinstance(turn, Go) and round_ > self.course.begun:
            assert self._mesh is not None
            for view, reason in self.course.enter(round_):
                self._log_view(view, reason, None)
                self._mesh.let_go(view)
            self.tell_peer(local.Begun(round_))
            return Go(self.in_force or turn.view, turn.sharers)
        return turn

    def _look(self, round_: int) -> Turn | None:
        assert self._exchange is not None
        return self.course.turn(round_, apart=self.apart, frozen=self._exchange.frozen)

    async def hold(self, hold: Hold) -> None:
        """Wait until those newcomers pull no more."""
        await self._until(lambda: bool(self.apart) or self.course.held_enough(hold) or None)

    @property
    def donor(self) -> Donor:
        """Serves the state while this worker holds."""
        assert self._donor is not None
        return self._donor

    @property
    def last_operation(self) -> OpId:
        """The last operation finished here."""
        assert self._exchange is not None
        return self._exchange.last

    # ---- training: operations --------------------------------------------------------------

    async def operate(
        self,
        op: OpId,
        label: str,
        blob: bytes,
        vector: Floats | None,
        weight: float,
        buckets: tuple[tuple[int, int], ...] | None,
    ) -> Outcome | None:
        """Run one operation with the other members; None if this node is apart.

        Raises:
            OperationMismatch: members asked for different things under this number.
        """
        assert self._exchange is not None
        if self.apart and not self.course.alone:
            return None
        self._finished = None
        self._exchange.begin(op, label, blob, vector, weight, buckets)
        self._carry_out()
        return await self._outcome(label)

    def begin_operation(
        self,
        op: OpId,
        label: str,
        vector: Floats,
        weight: float,
        buckets: tuple[tuple[int, int], ...],
    ) -> None:
        """Begin an operation whose contribution comes bit by bit; errors are told at its end."""
        if self.apart:
            return
        assert self._exchange is not None
        self._finished = None
        try:
            self._exchange.open(op, label, vector, weight, buckets)
        except ChaosError as error:
            self._failed = error
        self._carry_out()

    def give(self, bucket: int) -> None:
        """That bucket of the operation begun has its values."""
        if self.apart or self._failed is not None:
            return
        assert self._exchange is not None
        self._exchange.give(bucket)
        self._carry_out()

    async def end_operation(self, label: str, blob: bytes) -> Outcome | None:
        """Give the rest of the operation begun, and wait as :meth:`operate` does.

        Raises:
            ChaosError: it could not be begun.
            OperationMismatch: as :meth:`operate`.
        """
        if self.apart:
            return None
        assert self._exchange is not None
        if self._failed is None:
            self._exchange.close(blob)
            self._carry_out()
        return await self._outcome(label)

    async def _outcome(self, label: str) -> Outcome | None:
        """Wait for the end of the operation under way; None if this node falls out of the run."""
        watch = asyncio.get_running_loop().create_task(self._watch(label))
        try:
            done: Finished | str = await self._until(self._end_of_operation)
        except OperationMismatch:
            await self._let_others_hear()
            raise
        finally:
            watch.cancel()
        if isinstance(done, str):
            return None
        return Outcome(done.op, done.members, done.weights, done.total, done.blobs, done.result)

    async def _let_others_hear(self) -> None:
        """Who ends at once looks dead, and the others go on without it and without the error."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_s):
                await self._until(lambda: None if self._mesh and self._mesh.linked else True)

    def _end_of_operation(self) -> Finished | str | None:
        if self._failed is not None:
            raise self._failed
        return self._finished or self.apart or None

    async def _watch(self, label: str) -> None:
        """Show a long wait, and complain of whoever causes it."""
        shown = 0.0
        complained: set[Uid] = set()
        while True:
            await asyncio.sleep(LATE_CHECK_S)
            late = self._exchange.late() if self._exchange else None
            if late is None:
                continue
            op, seconds, owing = late
            if seconds - shown >= SHOW_WAIT_S:
                shown = seconds
                names = ", ".join(uid.rpartition("/")[0] for uid in owing) or "results"
                log.warning("%s (operation %s) waits %.0f s for %s", label, op, seconds, names)
            for uid in owing:
                if seconds > self.config.worker_timeout_s and uid not in complained:
                    complained.add(uid)
                    self.tell_peer(local.Late(uid, seconds, str(op)))

    def record(self, op: OpId, fields: dict[str, Any]) -> None:
        """Write this to the run log when the operation is stable."""
        self._records.append(_Record(op, fields))

    # ---- training: joining, leaving, ending ------------------------------------------------

    async def learn(self) -> View:
        """Wait for a place as learner; the view says when and from whom to pull."""
        return await self._until(self._place_as_learner)

    def _place_as_learner(self) -> View | None:
        if self.apart:
            raise JoinError(self.apart)
        view = self.course.view
        here = any(m.uid == self.me.uid for m in view.learners)
        return view if here else None

    async def unless_apart(self, work: Coroutine[Any, Any, T]) -> T:
        """Do this, but give it up when this node falls out of the run.

        Raises:
            JoinError: it did.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        end = loop.create_task(self._until(lambda: self.apart or None))
        try:
            await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise JoinError(end.result())
            return task.result()
        finally:
            task.cancel()
            end.cancel()
            await asyncio.gather(task, end, return_exceptions=True)

    async def take_seat(self, view: View, last: OpId) -> None:
        """Say that the state of round ``view.switch`` is here, and wait for the seat.

        Args:
            view: as :meth:`learn` gave it.
            last: the last operation the state contains.
        """
        assert self._exchange is not None and self._mesh is not None
        self._exchange.start(last)
        self._check_pulled()
        self.course.begun = view.switch - 1
        await self._until(self._all_linked)
        self.tell_peer(local.Pulled(view.epoch, view.switch))
        await self._until(self._seated)

    def _check_pulled(self) -> None:
        """A donor that died may have served a result that the others then made anew."""
        assert self._exchange is not None
        if self.course.outlived(self._exchange.last):
            self.fall_out("what it pulled was done again after a donor was lost")

    def _all_linked(self) -> bool | None:
        if self.apart:
            raise JoinError(self.apart)
        assert self._mesh is not None
        return True if all(uid in self._mesh.linked for uid in self.course.view.uids) else None

    def _seated(self) -> bool | None:
        if self.apart:
            raise JoinError(self.apart)
        return True if self.course.seated else None

    def leave(self) -> None:
        """Ask to be planned out."""
        self.course.leaving = True
        self.run_log.write("leaving")
        self.tell_peer(local.Leaving())
        self._tell()

    async def part_from_others(self, bound_s: float) -> None:
        """After a planned leave: wait until those who stay have closed their links to this node."""
        mesh = self._mesh
        assert mesh is not None
        mesh.let_go()  # they leave too, and would wait for this node's end
        try:
            async with asyncio.timeout(bound_s):
                await self._until(lambda: True if not mesh.linked else None)
        except TimeoutError:
            log.warning("left after %.1f s with links still open", bound_s)

    async def finish(self, round_: int, final: dict[str, Any], bound_s: float) -> None:
        """Training is over: wait until it is over everywhere, or too long."""
        self.settle_all()
        self.run_log.write("final", **final)
        self.tell_peer(local.Done(round_))
        try:
            async with asyncio.timeout(bound_s):
                await self._until(lambda: True if self.all_done or self.apart else None)
        except TimeoutError:
            log.warning("not everybody has finished after %.1f s; going on", bound_s)
        self.all_done = True
