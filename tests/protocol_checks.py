"""What must hold after every step of every run (design §4 and §6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_chaos.protocol import local
from lightning_chaos.protocol.quorum import may_commit
from lightning_chaos.protocol.values import OpId, Uid, View

if TYPE_CHECKING:
    from protocol_network import Node
    from protocol_worker import Entry, Worker
    from protocol_world import World


class Violation(AssertionError):
    """Something happened that never may."""


class RunLost(Exception):
    """Nobody is left who holds the state: nothing remains to be checked."""


class Checks:
    """Watches a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._views: dict[int, View] = {}
        self._decisions: dict[int, Any] = {}
        self._stable: dict[OpId, dict[Entry, set[Worker]]] = {}
        self._installed: dict[Uid, int] = {}
        self._founder: Node | None = None

    # ---- views -----------------------------------------------------------------------------

    def founded(self, node: Node) -> None:
        """Only one run, as long as anybody of it lives."""
        if self._founder is not None:
            self._newest_holders()
            if any(n.member and n is not node for n in self._world.nodes.values()):
                raise Violation(f"{node.uid} founded a second run")
            raise RunLost
        self._founder = node
        assert node.peer.view is not None
        self._views[1] = node.peer.view

    def installed(self, node: Node, said: local.Install) -> None:
        """One view per epoch, one decision too; epochs of one incarnation only grow."""
        view = said.view
        if self._takes_part(self._views.get(view.epoch), view):
            raise Violation(f"two views of epoch {view.epoch}: {self._views[view.epoch]}, {view}")
        if view != self._views.get(view.epoch):
            self._decisions[view.epoch] = said.decision
        self._views[view.epoch] = view
        decision = self._decisions[view.epoch]
        if decision != said.decision:
            raise Violation(f"two decisions of epoch {view.epoch}: {decision}, {said.decision}")
        if self._installed.get(node.uid, 0) >= view.epoch:
            raise Violation(f"{node.uid} installs epoch {view.epoch} a second time")
        self._installed[node.uid] = view.epoch

    def _takes_part(self, known: View | None, view: View) -> bool:
        """Somebody has another view and is not dead: the last resort allows no such thing."""
        if known is None or known == view:
            return False
        return any(n.member and n.peer.view == known for n in self._world.nodes.values())

    def after_step(self, node: Node) -> None:
        """No permit from the switch round on between agreement and outcome."""
        peer = node.peer
        blocked = peer._standing.acceptor.blocked
        if blocked is not None and peer.permits.granted >= blocked:
            raise Violation(f"{node.uid} granted {peer.permits.granted}, blocked at {blocked}")

    def newest(self) -> View:
        """The view with the highest epoch that anybody installed."""
        return self._views[max(self._views)]

    def _newest_holders(self) -> list[Node]:
        nodes = (self._world.nodes[uid] for uid in self.newest().uids)
        return [n for n in nodes if n.member]

    # ---- operations ------------------------------------------------------------------------

    def _bound(self, op: OpId) -> list[Entry]:
        """What is stable at somebody who still takes part.

        When all who know a result are gone, the last resort of the quorum rule lets the others
        go on from an older state.
        """
        found = self._stable.get(op, {}).items()
        return [e for e, known in found if any(not w.ended and not w.apart for w in known)]

    def stable(self, worker: Worker, op: OpId) -> None:
        """One member set and one result."""
        entry = worker.history[op]
        self._stable.setdefault(op, {}).setdefault(entry, set()).add(worker)
        if len(bound := self._bound(op)) > 1:
            raise Violation(f"{op} is stable in several ways: {bound}")

    # ---- the end ---------------------------------------------------------------------------

    def histories(self) -> None:
        """Every member's past agrees with what is stable, and lacks nothing of it."""
        for node in self._world.nodes.values():
            worker = node.worker
            if not node.member or not node.worker_alive or worker.apart:
                continue
            last = max(worker.history, default=OpId(-1, 0))
            for op in self._stable:
                for entry in self._bound(op):
                    if op < last and worker.history.get(op) != entry:
                        raise Violation(f"{worker.uid}: {op} was {worker.history.get(op)}: {entry}")

    def lost(self) -> bool:
        """Nobody of the newest view is left."""
        return not self._newest_holders()

    def has_quorum(self) -> bool:
        """Whether those of the newest view who live may go on without the others."""
        world, view = self._world, self.newest()
        live = {n.uid for n in self._newest_holders()}
        dead = set(view.uids) - live if world.same_machine else set()
        return may_commit(view.uids, live, dead)[0]
