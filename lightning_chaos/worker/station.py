"""One incarnation of a node, on the I/O loop: between its peer, its links and training.

Everything here runs on one event loop; training talks to it through
:class:`~lightning_chaos.worker.node.Node`.  A station lives as long as its peer process.  When
that dies, or the run goes on without this incarnation, the station is *apart*: it completes
nothing more, and a new one takes its place.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial

from lightning_chaos.collective.actions import Landing, Verdict
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.collective.frames import Frame
from lightning_chaos.errors import ChaosError, PeerGone
from lightning_chaos.monitor.runlog import RunLog
from lightning_chaos.peer.client import PeerClient, start_peer
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import Ballot, Decision, Uid, View
from lightning_chaos.replication.donor import Donor
from lightning_chaos.transport.door import Kind
from lightning_chaos.worker.allowance import tell_allowance
from lightning_chaos.worker.chronicle import Chronicle
from lightning_chaos.worker.course import Course
from lightning_chaos.worker.gauges import tell_gauges
from lightning_chaos.worker.mesh import Mesh
from lightning_chaos.worker.news import News
from lightning_chaos.worker.operations import Operations
from lightning_chaos.worker.outfit import Outfit, Wiring, fit_out
from lightning_chaos.worker.tasks import Tasks
from lightning_chaos.worker.words import heed

log = logging.getLogger(__name__)


class Station:
    """See the module; every method is called on the loop.

    Args:
        config: for the peer process.
        door: the node's listening socket, handed to the peer.
        wiring: how its links are made.
        run_log: where stable rounds and events are written.
        on_stop: told why somebody asks the whole run to end.
    """

    def __init__(
        self,
        config: PeerConfig,
        door: socket.socket,
        wiring: Wiring,
        run_log: RunLog,
        on_stop: Callable[[str], None],
    ) -> None:
        self.config = config
        self.chronicle = Chronicle(run_log)
        self.on_stop = on_stop
        self.leaving = False
        """This node wants to go, and must not join any more."""
        self.standing: local.Standing | None = None
        self.apart = ""
        self.where: tuple[str, ...] = ()
        """Addresses of those who went on without this incarnation, as far as they are known."""
        self.waiting = ""
        self.peer_pid = 0
        self.samples = 0
        """Committed by the rounds so far, over all data epochs."""
        self.all_done = False
        self._door = door
        self._wiring = wiring
        self._peer: PeerClient | None = None
        self._outfit: Outfit | None = None
        self._news = News()
        self.tell, self.until, self.fail = self._news.tell, self._news.until, self._news.fail
        self.links_changed = self.tell
        self._tasks = Tasks(self.on_failure)
        self.spawn = self._tasks.spawn
        self._words = Tasks(self.on_failure)
        """What is said when it is apart already."""

    def on_failure(self, error: BaseException) -> None:
        """Something of this incarnation failed that cannot: whoever waits is told."""
        log.error("a task of %s failed", self.config.node, exc_info=error)
        self.fail(ChaosError(f"internal error: {error!r}"))

    # ---- life ------------------------------------------------------------------------------

    async def open(self) -> local.Standing:
        """Start the peer and wait until it has founded the run or found it.

        Raises:
            JoinError: it did neither; the message says why.
            PeerGone: it ended before.
            RunFinished: the run is over.
        """
        process = start_peer(self.config, self._door)
        self.peer_pid = process.pid
        self._peer = await PeerClient.connect(
            process,
            on_message=partial(heed, self),
            on_socket=self._on_socket,
            on_gone=self._on_peer_gone,
        )
        return await self.until(lambda: self.standing)

    async def aclose(self, reason: str) -> None:
        """Say goodbye, close every connection, end every task."""
        self.apart = self.apart or reason  # links that break from now on are not mended
        await self._tasks.end()
        await self._words.done()
        if self._peer is not None:
            if self.all_done and self.config.linger_s > 0:
                await self._peer.release()
            else:
                self._peer.send(local.Farewell(reason))
                await self._peer.aclose()
        if self._outfit is not None:
            await self.donor.aclose()
            await self.mesh.aclose()
        await self._tasks.end()
        self.tell()

    # ---- its parts, from the moment it knows the run ---------------------------------------

    @property
    def outfit(self) -> Outfit:
        """All of them."""
        assert self._outfit is not None
        return self._outfit

    @property
    def course(self) -> Course:
        """Its views and rounds."""
        return self.outfit.course

    @property
    def exchange(self) -> Exchange:
        """What it gives to operations and has of them."""
        return self.outfit.exchange

    @property
    def mesh(self) -> Mesh:
        """Its links."""
        return self.outfit.mesh

    @property
    def operations(self) -> Operations:
        """What it does together with the others."""
        return self.outfit.operations

    @property
    def donor(self) -> Donor:
        """Serves the state while this worker holds."""
        return self.outfit.donor

    # ---- the peer --------------------------------------------------------------------------

    def tell_peer(self, message: local.Local) -> None:
        """Send to the peer; dropped if it is gone."""
        if self._peer is not None and not self.apart:
            self._peer.send(message)

    def stand(self, standing: local.Standing) -> None:
        """The peer has founded the run or found it."""
        self.standing = standing
        self._outfit = fit_out(standing, self.config, self._wiring, self.chronicle, self)
        self.spawn(tell_allowance(self._outfit.allowance, self.tell_peer))
        self.spawn(tell_gauges(self.mesh, self.operations, self.tell_peer, self.chronicle))
        self.donor.admit(standing.view.everybody)
        if not standing.newcomer:
            self.chronicle.in_force(standing.view, "founded", -1)
            self.exchange.install(standing.view, None)
        if self.leaving:
            self._leave()

    def _on_socket(self, kind: Kind, sock: socket.socket) -> None:
        if self._outfit is not None and kind is Kind.DATA:
            self.mesh.adopt(sock)
        elif self._outfit is not None and kind is Kind.SHARDS:
            self.spawn(self.donor.serve(sock))
        else:
            sock.close()

    def _on_peer_gone(self, reason: str) -> None:
        if self._outfit is None and self._news.error is None:
            self.fail(PeerGone(f"the peer process ended: {reason}"))
        elif self._outfit is not None and not self.out_of_play:
            self._words.spawn(self.mesh.say_word(f"its peer is gone ({reason})"))
        self.fall_out(f"its peer is gone ({reason})")

    # ---- views -----------------------------------------------------------------------------

    def freeze(self, ballot: Ballot) -> None:
        """The view changes unplanned: complete nothing more, and say what is held."""
        self._freeze()
        if self._outfit is not None:
            self.tell_peer(local.Frozen(ballot, self.exchange.report(self.course.begun)))

    def _freeze(self) -> None:
        if self._outfit is not None and not self.exchange.frozen:
            self.chronicle.frozen()
            self.exchange.freeze()
            self.operations.carry_out()

    def install(self, view: View, decision: Decision | None, reason: str) -> None:
        """A view is agreed upon; what a freeze was for is decided."""
        self.chronicle.committed(view, decision, reason)
        self.exchange.install(view, decision)
        self.course.install(view, decision, reason)
        self.donor.admit(view.everybody)
        self.check_pulled()
        if decision is not None:
            self.chronicle.in_force(view, reason, self.course.begun)
            self.chronicle.thawed(view, decision, reason)
        self.operations.carry_out()
        self.mesh.meet(view)
        if decision is not None:
            self.mesh.let_go(view)

    def check_pulled(self) -> None:
        """A donor that died may have served a result that the others then made anew."""
        if self.course.outlived(self.exchange.last):
            self.fall_out("what it pulled was done again after a donor was lost")

    def fall_out(self, reason: str) -> None:
        """This incarnation has no part in the run any more."""
        if not self.apart:
            self.apart = reason
            if self._outfit is None or not self.course.alone:
                self._freeze()  # one that is alone ends the round it is in by itself
        self.tell()

    def leave(self) -> None:
        """Ask to be planned out; who has no part in the run yet just goes."""
        if not self.leaving:
            self.leaving = True
            self.chronicle.leaving()
            if self._outfit is not None:
                self._leave()
            self.tell()

    def _leave(self) -> None:
        self.course.leaving = True
        if self.course.seated or self.course.view.find(self.outfit.me.uid) is not None:
            self.tell_peer(local.Leaving())
        else:
            self.fall_out("it leaves before it has joined")

    # ---- the owner of mesh and operations --------------------------------------------------

    @property
    def views(self) -> list[View]:
        """See :class:`MeshOwner`."""
        return self._outfit.course.views if self._outfit else []

    @property
    def out_of_play(self) -> bool:
        """See :class:`MeshOwner`."""
        return bool(self.apart) or self.all_done

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        """See :meth:`Exchange.place`."""
        verdict = self.exchange.place(sender, frame)
        self.operations.carry_out()
        return verdict

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        """See :meth:`Exchange.complete`."""
        self.exchange.complete(sender, frame, landing)
        self.operations.carry_out()

    @property
    def may_operate(self) -> bool:
        """See :class:`OperationsOwner`."""
        return not self.apart or self.course.alone
