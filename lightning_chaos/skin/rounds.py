"""The time between rounds: wait for the turn, follow the view, serve a join or come in."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from lightning_chaos.errors import RunFinished, StateError
from lightning_chaos.protocol.values import Past
from lightning_chaos.replication.image import StateImage
from lightning_chaos.skin import handover, promotion
from lightning_chaos.skin.origin import platform_of
from lightning_chaos.skin.seat import Seat
from lightning_chaos.skin.threads import share_processor
from lightning_chaos.worker.turns import Apart, Go, Gone, Hold, Outcome

if TYPE_CHECKING:
    from lightning_chaos.callbacks import ShardPullHooks
    from lightning_chaos.protocol.messages import Fingerprint
    from lightning_chaos.protocol.values import Uid, View

log = logging.getLogger(__name__)


class Rounds(Seat):
    """Begins and ends rounds, and keeps rank and state those of the view in force."""

    fingerprint: Fingerprint
    _pull: ShardPullHooks | None

    def __init__(self, **lightning: Any) -> None:
        super().__init__(**lightning)
        self._begun_at = 0.0
        self._wait_s = 0.0
        self._sharers: tuple[Uid, ...] = ()
        self.standby_until: int | None = None
        """This node gives its seat back, to ask for one again at this round."""
        self._told: View | None = None

    def _begin_round(self) -> tuple[tuple[Uid, ...], int]:
        """Wait until the next round may begin; serve or join meanwhile."""
        self._end_round()
        try:
            return self._await_turn()
        except RunFinished as finished:  # it ended while this node was getting ready, or stood by
            self._exit_finished(finished)

    def _await_turn(self) -> tuple[tuple[Uid, ...], int]:
        assert self._pull is not None and self._healing is not None
        while True:
            turn = self.node.turn(self._samples.committed if self._samples is not None else 0)
            match turn:
                case Go(view=view, sharers=sharers):
                    self.node.begin_round()
                    self._follow(view)
                    if self.node.round == 0 and self._tells_digests:
                        self.node.tell_initial(self.image())
                    self._begun_at, self._wait_s, self._sharers = time.monotonic(), 0.0, sharers
                    return sharers, sharers.index(self.node.uid)
                case Hold():
                    self.node.hold(turn, self._image_or_reason())
                case Gone():
                    self.node.part()
                    if self.standby_until is not None:
                        self._step_out()
                        self._healing.stand_by(self, self.standby_until)
                        self.standby_until = None
                        continue
                    assert self._signals is not None
                    self.node.log("leave", round=self.node.round)
                    raise self._signals.ending()
                case Apart():
                    self._step_out()
                    self._healing.come_in(self, self._pull, turn)

    def _follow(self, view: View) -> None:
        """Ranks and threads are those of this view."""
        if self._view is not None and view.epoch == self._view.epoch:
            return
        self._view = view
        self._note_others(view)
        rank = view.rank(self.node.uid)
        promoted = rank == 0 and self._rank != 0
        self._rank, self._world = rank if rank is not None else self._rank, len(view.members)
        promotion.set_rank(self._rank)
        if promoted:
            promotion.promote(self._trainer)
        me = view.find(self.node.uid)
        if me is not None:
            share_processor(me, view)

    def _tell(self, view: View) -> None:
        """The members of this view made the round's sum: callbacks hear of it if it is new.

        Not when it comes into force: that meets some members before an optimizer's step and some
        behind it, and where a callback sets the learning rate their states would part.
        """
        if view != self._told:
            assert self._healing is not None
            self._told = view
            self._healing.on_view(self._trainer, view)

    def _step_out(self) -> None:
        """Out of the run: write nothing that the run's rank zero may write too."""
        assert self._samples is not None
        self._samples.drop()
        if self._view is not None:
            self._view = None
            self._rank, self._world = max(1, self._world), self._world + 1
            promotion.set_rank(self._rank)

    def _after_operation(self, outcome: Outcome | None) -> None:
        if outcome is None:
            self._step_out()
        else:  # not the view in force: others may have finished before that one came
            self._follow(outcome.view)

    def _end_round(self) -> None:
        if self._begun_at:
            assert self._healing is not None
            if self.node.in_step:
                self._healing.round_finished()
            self._begun_at = 0.0

    def past_now(self) -> Past:
        """What this node would bring if it started with the state that it has."""
        assert self._samples is not None
        rounds, generation = self._samples.trained_rounds, self.node.view.generation
        return Past(generation, self._samples.trained_samples, rounds, (generation, rounds))

    def image(self) -> StateImage:
        """This member's state between two rounds."""
        shared, local = self._state()
        node = self.node
        return StateImage.of(shared, local, round=node.round + 1, operation=node.last_operation)

    def _image_or_reason(self) -> StateImage | str:
        try:
            return self.image()
        except StateError as error:  # no reason to end the run: only nobody can join it
            log.error("cannot take anybody in: %s", error)
            return str(error)

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        assert self._samples is not None and self._reducer is not None
        shared, local = handover.take(self._trainer)
        shared["samples"] = self._samples.state_dict()
        shared["reducer"] = self._reducer.state_dict()
        # All have the same; but times are no part of what a run can be made to arrive at again.
        local["paces"] = self._samples.paces.state_dict()
        local["platform"] = platform_of(self.root_device)
        return shared, local

    def take_over(self, shared: Any, local: Any) -> None:
        """Make this node's training what the members' is."""
        assert self._samples is not None and self._reducer is not None
        handover.give(self._trainer, shared, local)
        self._samples.load_state_dict(shared["samples"])
        self._reducer.load_state_dict(shared["reducer"])
        self._samples.paces.load_state_dict(local["paces"])
