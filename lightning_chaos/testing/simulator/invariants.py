"""What must hold after every step of every run (design §4 and §6)."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from lightning_chaos.protocol import local
from lightning_chaos.protocol.quorum import may_commit
from lightning_chaos.protocol.reach import partners, unreached
from lightning_chaos.protocol.values import Ballot, Decision, OpId, Uid, View, pair_of
from lightning_chaos.testing.simulator.outcome import RunLost, Violation
from lightning_chaos.testing.simulator.seats import Seats
from lightning_chaos.testing.simulator.training import Entry

if TYPE_CHECKING:
    from lightning_chaos.testing.simulator.node import Node
    from lightning_chaos.testing.simulator.worker import Worker
    from lightning_chaos.testing.simulator.world import World


class Invariants:
    """Watches a world; every method raises :class:`Violation` when a promise is broken.

    What only the dead knew binds nobody: then the last resort of the quorum rule lets the others
    go on from what they know.

    Args:
        world: watched.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.seats = Seats(world)
        self._views: dict[int, View] = {}
        self._bases: dict[int, int] = {}
        self.decisions: dict[int, Decision | None] = {}
        """What the view of each epoch told frozen workers to do; None for planned ones."""
        self._acked: dict[Ballot, set[Uid]] = {}
        self._stable: dict[OpId, dict[Entry, set[Worker]]] = {}
        self._installed: dict[Uid, int] = {}
        self._founder: Node | None = None

    # ---- views -----------------------------------------------------------------------------

    def founded(self, node: Node) -> None:
        """Only one run, as long as anybody of it lives.

        Raises:
            RunLost: nobody of the first one does.
        """
        if self._founder is not None:
            if any(n is not node for n in self.members()):
                raise Violation(f"{node.uid} founded a second run")
            raise RunLost
        assert node.peer.view is not None
        self.begun_together(node, node.peer.view)

    def begun_together(self, founder: Node, view: View) -> None:
        """The run begins with this view."""
        self._founder = founder
        self._views[view.epoch] = view

    def installed(self, node: Node, said: local.Install) -> None:
        """One view per epoch, one decision too, both agreed to; epochs only grow."""
        view = said.view
        known = self._views.get(view.epoch)
        if known is not view and known != view:
            if known is not None and self._held(known):
                raise Violation(f"two views of epoch {view.epoch}: {_names(known)}; {_names(view)}")
            self._views[view.epoch], self.decisions[view.epoch] = view, said.decision
            self._agreed(node, view)
        if self.decisions[view.epoch] != said.decision:
            known_decision = self.decisions[view.epoch]
            raise Violation(
                f"two decisions of epoch {view.epoch}: {known_decision}, {said.decision}"
            )
        if self._installed.get(node.uid, 0) >= view.epoch:
            raise Violation(f"{node.uid} installs epoch {view.epoch} a second time")
        self._installed[node.uid] = view.epoch

    def _held(self, view: View) -> bool:
        """Somebody who takes part works under it."""
        return any(n.peer.view == view for n in self.members())

    def _agreed(self, node: Node, view: View) -> None:
        """The last view agreed to it, and so did any other that followed on that one.

        That is, if somebody works under it, or under what followed on it in turn.

        Counted here from what the members themselves hold, not by the rule under test.
        """
        commit = node.peer._standing.commit
        if commit is None or commit.proposal.view != view:
            return  # a later one was installed within the same step
        proposal = commit.proposal
        self._bases[view.epoch] = proposal.base
        self.seats.changed(self._views[proposal.base], view, planned=proposal.planned)
        agreed = self._acked.pop(proposal.ballot, set()) | {proposal.ballot.proposer}
        held = {n.peer.view.epoch for n in self.members() if n.peer.view and n is not node}
        rivals = {self._above(e, proposal.base) for e in held if proposal.base < e != view.epoch}
        for epoch in (proposal.base, *sorted(rivals - {view.epoch})):
            if not self._binds(self._views[epoch].uids, agreed):
                raise Violation(
                    f"{node.uid} commits epoch {view.epoch} of {_names(view)}, to which the "
                    f"members {_names(self._views[epoch])} of epoch {epoch} did not agree"
                )

    def _above(self, epoch: int, base: int) -> int:
        """The first view after that base on the way to that epoch."""
        while self._bases.get(epoch, base) > base:
            epoch = self._bases[epoch]
        return epoch

    def _binds(self, last: tuple[Uid, ...], agreed: set[Uid]) -> bool:
        """More than half, or half with the oldest; or all others died."""
        count = sum(uid in agreed for uid in last)
        quorum = 2 * count > len(last) or (2 * count == len(last) and last[0] in agreed)
        others = (self._world.nodes[uid] for uid in last if uid not in agreed)
        return quorum or not any(node.member for node in others)

    def after_step(self, node: Node) -> None:
        """No permit from the switch round on between agreement and outcome."""
        acceptor = node.peer._standing.acceptor
        if not acceptor.acked:
            return
        granted = node.peer.permits.granted
        for proposal in acceptor.acked:
            self._acked.setdefault(proposal.ballot, set()).add(node.uid)
            switch = proposal.view.switch
            if proposal.planned and granted >= switch:
                raise Violation(f"{node.uid} granted round {granted}, agreed to switch at {switch}")

    def members(self) -> list[Node]:
        """All who take part in the run, as far as they know."""
        return [n for n in self._world.nodes if n.member]

    def lost(self) -> bool:
        """Nobody is left who holds the state."""
        return not self.members()

    def newest(self) -> View:
        """The view with the highest epoch that anybody who takes part has installed."""
        views = [n.peer.view for n in self.members() if n.peer.view is not None]
        return max(views, key=lambda view: view.epoch)

    def has_quorum(self) -> bool:
        """Whether those who live may go on without the others, by the rule of design §4.

        They need a quorum of the newest view they know, and of any that those who are gone may
        have committed on top of it; and paths that lead from each to each.
        """
        members, newest = self.members(), self.newest()
        live = {n.uid for n in members}
        if not (self.joined([n for n in self._world.nodes if n.alive]) and self.stayers_joined()):
            return False
        dead = set(newest.uids) - live if self._world.same_machine else set()
        acked = [n.peer._standing.acceptor.acked for n in members]
        maybe = [p for given in acked for p in given if p.view.epoch > newest.epoch]
        for node in members:
            dead.update(node.peer._standing.evidence.dead)
        views = (newest, *(p.view for p in maybe if p.ballot.proposer not in live))
        return all(may_commit(view.uids, live, dead)[0] for view in views)

    def stayers_joined(self) -> bool:
        """Paths lead from each member of the newest view to each, over these alone.

        Newcomers carry nothing between members; nor can one who has been planned out, and who
        needs their results to go, be waited for.
        """
        newest = self.newest()
        return self.joined([n for n in self.members() if newest.rank(n.uid) is not None])

    def joined(self, nodes: list[Node]) -> bool:
        """Paths lead from each to each, over these alone."""
        paths = self._world.paths
        pairs = ((a, b) for a, b in combinations(nodes, 2) if not paths.joined(a.name, b.name))
        apart = partners(pair_of(a.uid, b.uid) for a, b in pairs)
        return not unreached(nodes[0].uid, [n.uid for n in nodes], apart) if apart else True

    # ---- rounds and operations -------------------------------------------------------------

    def begun(self, worker: Worker, round_: int) -> None:
        """Nobody begins a round without the planned view that serves it."""
        view = worker.view
        assert view is not None
        for epoch, base in self._bases.items():
            later = self._views[epoch]
            planned = self.decisions[epoch] is None
            if base == view.epoch and planned and later.switch <= round_ and self._held(later):
                raise Violation(
                    f"{worker.uid} begins round {round_} under epoch {view.epoch}; epoch {epoch} "
                    f"serves from round {later.switch} on"
                )

    def _bound(self, op: OpId) -> list[Entry]:
        """What is stable at somebody who still takes part."""
        found = self._stable.get(op, {}).items()
        return [entry for entry, known in found if any(w.active for w in known)]

    def stable(self, worker: Worker, op: OpId) -> None:
        """One member set and one result."""
        entry = worker.training.history[op]
        self._stable.setdefault(op, {}).setdefault(entry, set()).add(worker)
        if len(bound := self._bound(op)) > 1:
            raise Violation(f"operation {op} is stable in several ways: {bound}")

    def histories(self) -> None:
        """Every member's past agrees with what is stable, and lacks nothing of it."""
        for node in self.members():
            worker = node.worker
            if not worker.active:
                continue
            history = worker.training.history
            last = max(history, default=OpId(-1, 0))
            for op in self._stable:
                for entry in self._bound(op):
                    if op < last and history.get(op) != entry:
                        mine = history.get(op)
                        raise Violation(f"{worker.uid} has {mine} of operation {op}: {entry}")


def _names(view: View) -> str:
    return ", ".join(view.uids)
