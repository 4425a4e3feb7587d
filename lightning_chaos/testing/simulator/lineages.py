"""What must hold where sides without a quorum go on alone: everything, within each lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import OpId, Uid, View
from lightning_chaos.testing.simulator.invariants import Invariants
from lightning_chaos.testing.simulator.outcome import Violation
from lightning_chaos.testing.simulator.training import Entry

if TYPE_CHECKING:
    from lightning_chaos.testing.simulator.node import Node
    from lightning_chaos.testing.simulator.worker import Worker
    from lightning_chaos.testing.simulator.world import World


class _Lineage(Invariants):
    """One of them; only those whose view is of it count."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world)
        self._name = name

    def members(self) -> list[Node]:
        """See the base class."""
        return [n for n in super().members() if _name_of(n) == self._name]

    def _bound(self, op: OpId) -> list[Entry]:
        here = {n.worker for n in self.members()}
        found = self._stable.get(op, {}).items()
        return [entry for entry, known in found if any(w.active and w in here for w in known)]


class Lineages(Invariants):
    """Watches a world whose nodes have ``quorum="any"``; see the base class.

    Only the first view of an island has no quorum of the view before; and in the end, when
    everything works again, there is one lineage.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._lineages: dict[str, _Lineage] = {}
        self._out: set[Uid] = set()
        """Who has dropped out; the dead have not."""

    def _of(self, node: Node) -> _Lineage:
        return self._named(_name_of(node))

    def _named(self, name: str) -> _Lineage:
        return self._lineages.setdefault(name, _Lineage(self._world, name))

    def begun_together(self, founder: Node, view: View) -> None:
        """See the base class."""
        super().begun_together(founder, view)
        self._named(view.lineage.name).begun_together(founder, view)

    def founded(self, node: Node) -> None:
        """See the base class."""
        super().founded(node)

    def installed(self, node: Node, said: local.Install) -> None:
        """See the base class."""
        if said.view.lineage.name in self._lineages:
            self._of(node).installed(node, said)
        else:
            first = self._of(node)
            first._views[said.view.epoch] = said.view
            first.decisions[said.view.epoch] = said.decision

    def dropped_out(self, node: Node, said: local.Removed) -> None:
        """Not all give up: somebody of those that it has met is left, or has died.

        And nobody gives more samples up than those have for whom it does.

        Raises:
            Violation: they have given up too, or have fewer.
        """
        self._out.add(node.uid)
        met = node.peer._standing.islands.known.values()
        for view in met:
            if tuple(member.address for member in view.members) == said.where:
                self._worth_it(node, view)
        others = sorted({uid for view in met for uid in view.uids} & self._out - {node.uid})
        if others and not self.members():
            raise Violation(f"{node.uid} gives up, and so have {', '.join(others)}: nobody is left")

    def _worth_it(self, node: Node, other: View) -> None:
        """What the members there have now, against what was claimed here."""
        claim = node.peer.view.lineage.claim if node.peer.view is not None else None
        there = self._named(other.lineage.name).members()
        most = max((n.worker.training.samples for n in there), default=None)
        if claim is not None and most is not None and claim.samples > most:
            raise Violation(
                f"{node.uid} gives up a state with {claim.samples} samples for that of "
                f"{other.lineage.story}, which has {most}"
            )

    def after_step(self, node: Node) -> None:
        """See the base class."""
        if node.peer.view is not None:
            self._of(node).after_step(node)

    def has_quorum(self) -> bool:
        """Nobody has to wait for one, if paths lead from each to each."""
        alive = [n for n in self._world.nodes if n.alive]
        return self.joined(alive) and self.joined(self.members())

    def begun(self, worker: Worker, round_: int) -> None:
        """See the base class."""
        self._of(self._world.nodes[worker.uid]).begun(worker, round_)

    def stable(self, worker: Worker, op: OpId) -> None:
        """See the base class."""
        self._of(self._world.nodes[worker.uid]).stable(worker, op)

    def histories(self) -> None:
        """See the base class."""
        for lineage in self._lineages.values():
            lineage.histories()


def _name_of(node: Node) -> str:
    return node.peer.view.lineage.name if node.peer.view is not None else ""
