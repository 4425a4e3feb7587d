"""What a worker may do next, as views and permits come; no loop, no sockets."""

from __future__ import annotations

from lightning_chaos.protocol.values import Decision, OpId, Uid, View
from lightning_chaos.worker.turns import Apart, Go, Gone, Hold, Sharers, Turn


class Course:
    """Views in order, each from its round on, and what they let this worker do.

    Args:
        me: this incarnation.
        view: that this node founded, or found as a newcomer.
        newcomer: it has no part in that view yet.
    """

    def __init__(self, me: Uid, view: View, *, newcomer: bool) -> None:
        self._me = me
        self.view = view
        """The newest view, perhaps one for a later round."""
        self.in_force: View | None = None if newcomer else view
        """The view that the present round runs under."""
        self.begun = -1
        """Highest round whose batch this worker has fetched."""
        self.pulling = False
        """This learner has bytes of the state."""
        self.leaving = False
        """This worker wants to go."""
        self._sharers = None if newcomer else Sharers(0, view.uids)
        self._planned: list[tuple[View, str]] = []
        self._permit = -1
        self._stood: list[OpId] = []

    @property
    def seated(self) -> bool:
        """It has or had a part in the run: it is no learner any more."""
        return self._sharers is not None

    @property
    def views(self) -> list[View]:
        """Those that the present round and coming ones run under, as far as is known."""
        ahead = [view for view, _ in self._planned]
        return ahead if self.in_force is None else [self.in_force, *ahead]

    @property
    def alone(self) -> bool:
        """No view that is known, up to the newest, has another member."""
        return self.in_force is not None and all(v.uids == (self._me,) for v in self.views)

    # ---- from the peer ---------------------------------------------------------------------

    def permit(self, upto: int) -> None:
        """Rounds up to this one may be begun."""
        self._permit = max(self._permit, upto)

    def install(self, view: View, decision: Decision | None, reason: str) -> None:
        """A committed view: a planned one serves from its round on, any other at once."""
        self.view = view
        if self._sharers is not None:
            self._sharers.step(decision.data_from if decision else view.switch, view.uids)
        elif view.rank(self._me) is not None:
            # The seat.  The next view may be here before training has taken notice of this one.
            self._sharers, self.in_force = Sharers(view.switch, view.uids), view
        elif decision is not None and self.pulling:
            self._stood.append(decision.finished)
        if decision is None:
            self._planned.append((view, reason))
        else:
            self._planned.clear()
            self.in_force = view

    def outlived(self, last: OpId) -> bool:
        """Whether a state up to this operation, pulled since, holds what was then made anew.

        A donor that died may have served a result that the others did not have and did again.
        """
        return any(last > stood for stood in self._stood)

    # ---- rounds ----------------------------------------------------------------------------

    def turn(self, round_: int, *, apart: str, frozen: bool) -> Turn | None:
        """What may be done at the begin of that round; None while that is not known.

        Args:
            round_: that would begin.
            apart: why this incarnation is not in the run, '' if it is.
            frozen: between a freeze and the view that ends it.
        """
        view = self.view
        if apart and not self.leaving:
            return Apart(apart)
        if self._sharers is None:
            return Gone() if self.leaving else Apart("it has not joined yet")
        # Others that leave too may still need this node up to the switch round.
        alone = view.uids == (self._me,) and view.switch <= round_
        if self.leaving and (apart or alone):
            return Gone()
        if view.rank(self._me) is None and view.switch <= round_:
            return Gone()
        if view.rank(self._me) is not None and view.learners and view.switch <= round_:
            return Hold(view)
        if self._permit < round_ or frozen:
            return None
        return Go(view, self._sharers.at(round_))

    def held_enough(self, hold: Hold) -> bool:
        """Nobody for whom this worker began to stand still learns any more.

        A later view may have learners of its own: they pull the state of a later round.
        """
        return not any(learner in self.view.learners for learner in hold.view.learners)

    def enter(self, round_: int) -> list[tuple[View, str]]:
        """That round begins.

        Returns:
            Views that come into force with it, oldest first, each with its reason.
        """
        assert self._sharers is not None
        self.begun = round_
        self._sharers.forget_before(round_)
        due = [(view, reason) for view, reason in self._planned if view.switch <= round_]
        del self._planned[: len(due)]
        if due:
            self.in_force = due[-1][0]
        return due
