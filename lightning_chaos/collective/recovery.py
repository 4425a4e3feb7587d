"""What one member does with its operations when an unplanned view ends the freeze (design §6)."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_chaos.collective.actions import Failed
from lightning_chaos.collective.hand import Hand
from lightning_chaos.collective.layout import Place
from lightning_chaos.collective.operation import Operation
from lightning_chaos.errors import NodeLost
from lightning_chaos.planning.forest import forest
from lightning_chaos.protocol.values import Decision, Uid, View


class Recovery:
    """Carries out one decision.

    Args:
        me: this member.
        view: that ends the freeze.
        decision: what becomes of the operations under way.
        hand: gives and passes on.
    """

    def __init__(self, me: Uid, view: View, decision: Decision, hand: Hand) -> None:
        self._me = me
        self._view = view
        self._decision = decision
        self._hand = hand

    def of_finished(self, operation: Operation) -> None:
        """This member finished it and keeps it: somebody may lack it."""
        if self._me in self._decision.sources:
            self._pass_on(operation)

    def of_current(self, operation: Operation) -> Failed | None:
        """Take what others have of it, keep what is held of it, or do it again."""
        if operation.op <= self._decision.finished:
            self._pass_on(operation)
        elif self._decision.held:
            return self._keep(operation)
        else:
            operation.afresh(self._me, self._view)
            self._hand.contribute(operation, operation.given())
        return None

    def _keep(self, operation: Operation) -> Failed | None:
        """Pass on the results that are held; do the others again with the same members."""
        view, decision = self._view, self._decision
        contributors = operation.attempt.layout.members
        if contributors != decision.contributors:
            problem = (
                f"{self._me} began operation {operation.op} with {', '.join(contributors)}, but "
                f"epoch {view.epoch} keeps results of {', '.join(decision.contributors)}"
            )
            return Failed(operation.op, NodeLost(problem))
        ways = {holder: self._way((holder,), view.uids) for holder in decision.held.values()}
        operation.again(self._me, view.epoch, {c: ways[u] for c, u in decision.held.items()})
        self._hand.pass_on(operation)
        self._hand.contribute(operation, operation.given())
        return None

    def _pass_on(self, operation: Operation) -> None:
        """Every result of an operation that somebody has finished goes one way."""
        way = self._way(self._decision.sources, self._decision.behind)
        every = range(len(operation.attempt.layout.chunks))
        operation.again(self._me, self._view.epoch, dict.fromkeys(every, way))
        self._hand.pass_on(operation)

    def _way(self, sources: Sequence[Uid], through: Sequence[Uid]) -> Place:
        """Where this member stands on the ways from these sources through these members."""
        view = self._view
        parents = forest(view.uids, view.missing, sources, through)
        children = tuple(uid for uid in view.uids if parents.get(uid) == self._me)
        return Place(parents.get(self._me), children)
