"""One incarnation of a node, on the I/O loop: its peer, exchange, links and donor.

Everything here runs on one event loop; training talks to it through
:class:`~lightning_chaos.worker.node.Node`.  A station lives as long as its peer process.  When
that dies, or the run goes on without this incarnation, the station is *apart*: it completes
nothing more, and a new one takes its place.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lightning_chaos.collective.actions import Landing, Verdict
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.collective.frames import Frame
from lightning_chaos.errors import ChaosError, FingerprintError, JoinError, PeerGone
from lightning_chaos.monitor.runlog import RunLog
from lightning_chaos.peer.client import PeerClient, start_peer
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import Decision, Member, OpId, Uid, View
from lightning_chaos.replication.donor import Donor
from lightning_chaos.transport.dial import Dialler
from lightning_chaos.transport.door import Kind
from lightning_chaos.transport.pacer import Pacer
from lightning_chaos.worker.chronicle import Chronicle
from lightning_chaos.worker.course import Course
from lightning_chaos.worker.gauges import tell_gauges
from lightning_chaos.worker.mesh import Mesh
from lightning_chaos.worker.operations import Operations
from lightning_chaos.worker.turns import Go, Hold, Turn

log = logging.getLogger(__name__)
T = TypeVar("T")


class RunFinished(ChaosError):
    """The run this node looked for has ended already."""

    def __init__(self, round_: int) -> None:
        super().__init__(f"the run finished after round {round_}")
        self.round = round_


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
    leaving: bool = False
    """This node wants to go, and must not join any more."""
    standing: local.Standing | None = None
    apart: str = ""
    where: tuple[str, ...] = ()
    """Addresses of those who went on without this incarnation, as far as they are known."""
    waiting: str = ""
    peer_pid: int = 0
    samples: int = 0
    """Committed by the rounds so far, over all data epochs."""
    all_done: bool = False
    _course: Course | None = None
    _error: ChaosError | None = None
    _peer: PeerClient | None = None
    _chronicle: Chronicle = field(init=False)
    _exchange: Exchange | None = None
    _operations: Operations | None = None
    _mesh: Mesh | None = None
    _donor: Donor | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _pacers: dict[str, Pacer] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._chronicle = Chronicle(self.run_log)

    # ---- life ------------------------------------------------------------------------------

    async def open(self) -> local.Standing:
        """Start the peer and wait until it has founded the run or found it.

        Raises:
            JoinError: it did neither; the message says why.
            PeerGone: it ended before.
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
        return await self.until(lambda: self.standing)

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
        self.tell()

    async def _end_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tell_peer(self, message: local.Local) -> None:
        """Send to the peer; dropped if it is gone."""
        if self._peer is not None and not self.apart:
            self._peer.send(message)

    # ---- waiting ---------------------------------------------------------------------------

    def tell(self) -> None:
        """Something changed: whoever waits looks again."""
        self._news.set()
        self._news = asyncio.Event()

    async def until(self, look: Callable[[], T | None]) -> T:
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
            case local.Removed(reason=reason, where=where):
                self.where = where
                self.fall_out(reason)
            case local.RunOver(round=round_):
                self._error = RunFinished(round_)
            case local.AllDone():
                self.all_done = True
            case local.Stop(reason=reason):
                self.on_stop(reason)
            case local.Waiting(reason=reason):
                self.waiting = reason
                self._chronicle.waiting(reason)
            case local.NoLink(reasons=reasons):
                self._chronicle.links(reasons)
            case _:
                log.debug("the peer said %s", type(message).__name__)
        self.tell()

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
        self._operations = Operations(
            self._exchange,
            self._mesh,
            self._chronicle,
            self,
            timeout_s=self.config.timeout_s,
            worker_timeout_s=self.config.worker_timeout_s,
        )
        gauges = tell_gauges(self._mesh, self._operations, self.tell_peer, self.run_log)
        self.spawn(gauges)
        patience_s = self.config.worker_timeout_s
        self._donor = Donor(self.config.run, self._pacer, self.accept_tls, patience_s=patience_s)
        if not standing.newcomer:
            self._chronicle.in_force(standing.view, "founded", -1)
            self._exchange.install(standing.view, None)
        if self.leaving:
            self._leave()

    def _on_peer_gone(self, reason: str) -> None:
        if self.standing is None and self._error is None:
            self._error = PeerGone(f"the peer process ended: {reason}")
        elif self._mesh is not None and not self.out_of_play:
            self.spawn(self._mesh.say_word(f"its peer is gone ({reason})"))
        self.fall_out(f"its peer is gone ({reason})")

    def fall_out(self, reason: str) -> None:
        """This incarnation has no part in the run any more."""
        if not self.apart:
            self.apart = reason
            if self._course is None or not self._course.alone:
                self._freeze()  # one that is alone ends the round it is in by itself
        self.tell()

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
    def views(self) -> list[View]:
        """See :class:`MeshOwner`."""
        return self._course.views if self._course else []

    @property
    def me(self) -> Member:
        """This incarnation."""
        assert self.standing is not None
        return self.standing.me

    # ---- views -----------------------------------------------------------------------------

    def _freeze(self) -> None:
        if self._exchange is not None and not self._exchange.frozen:
            self._chronicle.frozen()
            self._exchange.freeze()
            self.operations.carry_out()

    def _install(self, view: View, decision: Decision | None, reason: str) -> None:
        assert self._exchange is not None and self._mesh is not None
        self._chronicle.committed(view, decision, reason)
        self._exchange.install(view, decision)
        self.course.install(view, decision, reason)
        self._check_pulled()
        if decision is not None:
            self._chronicle.in_force(view, reason, self.course.begun)
            self._chronicle.thawed(view, decision, reason)
        self.operations.carry_out()
        self._mesh.meet(view)
        if decision is not None:
            self._mesh.let_go(view)

    # ---- the mesh's owner ------------------------------------------------------------------

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        """See :meth:`Exchange.place`."""
        assert self._exchange is not None
        verdict = self._exchange.place(sender, frame)
        self.operations.carry_out()
        return verdict

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        """See :meth:`Exchange.complete`."""
        assert self._exchange is not None
        self._exchange.complete(sender, frame, landing)
        self.operations.carry_out()

    @property
    def out_of_play(self) -> bool:
        """See :class:`MeshOwner`."""
        return bool(self.apart) or self.all_done

    def links_changed(self) -> None:
        """See :class:`MeshOwner`."""
        self.tell()

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
            self.tell()

    # ---- founding anew ---------------------------------------------------------------------

    def go_on_from(self, before: Station) -> None:
        """Alone, and founded the run anew: its last incarnation's rounds stand, as its own."""
        before._chronicle.all_stable()
        self.course.begun = before.course.begun
        self.samples = before.samples
        self.tell_peer(local.Begun(self.course.begun, self.samples))

    # ---- training: rounds ------------------------------------------------------------------

    async def turn(self, round_: int, samples: int) -> Turn:
        """What this worker may do at the begin of that round; waits until it is known."""
        self.samples = samples
        turn: Turn = await self.until(lambda: self._look(round_))
        if isinstance(turn, Go) and round_ > self.course.begun:
            assert self._mesh is not None
            self._mesh.let_missing_go()  # all have done a round without them
            for view, reason in self.course.enter(round_):
                self._chronicle.in_force(view, reason, round_)
                self._mesh.let_go(view)
            self.tell_peer(local.Begun(round_, samples))
            return Go(self.in_force or turn.view, turn.sharers)
        return turn

    def _look(self, round_: int) -> Turn | None:
        assert self._exchange is not None
        return self.course.turn(round_, apart=self.apart, frozen=self._exchange.frozen)

    async def hold(self, hold: Hold) -> None:
        """Wait until those newcomers pull no more."""
        await self.until(lambda: bool(self.apart) or self.course.held_enough(hold) or None)

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

    @property
    def operations(self) -> Operations:
        """What this incarnation does together with the others."""
        assert self._operations is not None
        return self._operations

    @property
    def may_operate(self) -> bool:
        """See :class:`OperationsOwner`."""
        return not self.apart or self.course.alone

    def record(self, op: OpId, fields: dict[str, Any]) -> None:
        """Write this round to the run log when the operation is stable."""
        self._chronicle.keep(op, fields)

    # ---- training: joining, leaving, ending ------------------------------------------------

    async def learn(self) -> View:
        """Wait for a place as learner; the view says when and from whom to pull."""
        return await self.until(self._place_as_learner)

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
        end = loop.create_task(self.until(lambda: self.apart or None))
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
        await self.until(self._all_linked)
        self.tell_peer(local.Pulled(view.epoch, view.switch))
        await self.until(self._seated)

    def _check_pulled(self) -> None:
        """A donor that died may have served a result that the others then made anew."""
        assert self._exchange is not None
        if self.course.outlived(self._exchange.last):
            self.fall_out("what it pulled was done again after a donor was lost")

    def _all_linked(self) -> bool | None:
        if self.apart:
            raise JoinError(self.apart)
        assert self._mesh is not None
        view, linked = self.course.view, self._mesh.linked
        due = [uid for uid in view.uids if view.joins(self.me.uid, uid)]
        return True if all(uid in linked for uid in due) else None

    def _seated(self) -> bool | None:
        if self.apart:
            raise JoinError(self.apart)
        return True if self.course.seated else None

    def leave(self) -> None:
        """Ask to be planned out; who has no part in the run yet just goes."""
        if not self.leaving:
            self.leaving = True
            self._chronicle.leaving()
            if self._course is not None:
                self._leave()
            self.tell()

    def _leave(self) -> None:
        self.course.leaving = True
        if self.course.seated or self.course.view.find(self.me.uid) is not None:
            self.tell_peer(local.Leaving())
        else:
            self.fall_out("it leaves before it has joined")

    async def part_from_others(self, bound_s: float) -> None:
        """After a planned leave: wait until those who stay have closed their links to this node."""
        mesh = self._mesh
        assert mesh is not None
        mesh.let_go()  # they leave too, and would wait for this node's end
        try:
            async with asyncio.timeout(bound_s):
                await self.until(lambda: True if not mesh.linked else None)
        except TimeoutError:
            log.warning("left after %.1f s with links still open", bound_s)

    async def finish(self, round_: int, final: dict[str, Any], bound_s: float) -> None:
        """Training is over: wait until it is over everywhere, or too long."""
        self._chronicle.final(final)
        self.tell_peer(local.Done(round_))
        try:
            async with asyncio.timeout(bound_s):
                await self.until(lambda: True if self.all_done or self.apart else None)
        except TimeoutError:
            log.warning("not everybody has finished after %.1f s; going on", bound_s)
        self.all_done = True
