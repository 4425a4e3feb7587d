"""The two callbacks of the strategy; it adds them when the user has not.

``ShardPull`` takes the newcomer's part of a join: ask for a place, pull the state from all
members at once, put it in place, take the seat.  ``SelfHealing`` reacts to views: it tells the
user's callbacks, brings this node back when it fell out, and logs the figures of the run.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

import lightning.pytorch as pl
from typing_extensions import override

from lightning_chaos.errors import JoinError
from lightning_chaos.replication.image import assemble
from lightning_chaos.replication.values import Progress, Pulled
from lightning_chaos.skin.progress import PullProgress
from lightning_chaos.worker.restarts import Restarts
from lightning_chaos.worker.turns import Apart

if TYPE_CHECKING:
    from lightning_chaos.protocol.values import View
    from lightning_chaos.skin.rounds import Rounds
    from lightning_chaos.skin.samples import Samples

log = logging.getLogger(__name__)
C = TypeVar("C")


class ShardPullHooks:
    """A newcomer's way into the run.

    Args:
        show: draw a bar per donor while the state is pulled (only on a terminal).
    """

    def __init__(self, show: bool = True) -> None:
        super().__init__()
        self._show = show

    def join(self, strategy: Rounds) -> None:
        """Learn the state and take the seat; returns between two rounds, as a member.

        Raises:
            JoinError: the run does not take this node, or has lost it on the way.
            RunFinished: the run has ended.
        """
        node = strategy.node
        with PullProgress(node, self._show) as progress:
            pulled = node.learn(strategy.image, progress.show)
        strategy.take_over(assemble(pulled.manifest, pulled.buffer), pulled.local)
        node.take_seat(pulled.manifest.operation)
        self._report(strategy, pulled, progress.last)

    def _report(self, strategy: Rounds, pulled: Pulled, last: Progress | None) -> None:
        began = strategy.clock() - pulled.seconds
        strategy.node.log(
            "pull",
            round=pulled.manifest.round,
            bytes=last.total if last else 0,
            seconds=pulled.seconds,
            shards=pulled.manifest.shards,
            shard_bytes=pulled.manifest.shard_bytes,
            kept_bytes=pulled.kept_bytes,
            planned_s=pulled.planned_s,
            predicted_s=pulled.predicted_s,
            per_donor=[
                {
                    "node": share.name,
                    "bytes": share.bytes,
                    "shards": share.shards,
                    "first_t": began + share.first_s if share.first_s is not None else None,
                    "last_t": began + share.last_s if share.last_s is not None else None,
                    "rtt_s": share.rtt_s,
                    "train_bytes_per_s": share.train_bytes_per_s,
                    "planned_bytes_per_s": share.planned_bytes_per_s,
                    "planned_bytes": share.planned_bytes,
                    "bytes_per_s": share.measured.bytes_per_s if share.measured else None,
                    "problem": share.problem,
                }
                for share in pulled.donors
            ],
        )
        log.info(
            "joined round %d: pulled %.1f MB from %d donors in %.2f s",
            pulled.manifest.round,
            sum(share.bytes for share in pulled.donors) / 1e6,
            sum(share.bytes > 0 for share in pulled.donors),
            pulled.seconds,
        )


class SelfHealingHooks:
    """What happens when the members change, or when this node falls out.

    Args:
        restarts: how often in a row this node may fall out of the run and come back.
    """

    def __init__(self, restarts: int = 3) -> None:
        super().__init__()
        self._restarts = Restarts(restarts)
        self._standby_until = -1
        """Round at which this node, which has given its seat back, asks for one again."""
        self.samples: Samples | None = None
        """Of the fit that runs; a checkpoint says which samples of its epoch are used up."""
        self.resumed: dict[str, Any] = {}
        """What a checkpoint said, until the fit has begun."""

    def on_view(self, trainer: Any, view: View) -> None:
        """A view has made its first round's gradients: tell those who want to know.

        All members come here between the same reduction and the same optimizer step, so what is
        changed here (a learning rate) stays equal.  Callbacks implement
        ``on_chaos_view(trainer, module, view)``, the module ``on_chaos_view(trainer, view)``.
        """
        module = trainer.lightning_module
        for callback in trainer.callbacks:
            if hasattr(callback, "on_chaos_view"):
                callback.on_chaos_view(trainer, module, view)
        if hasattr(module, "on_chaos_view"):
            module.on_chaos_view(trainer, view)

    def come_in(self, strategy: Rounds, pull: ShardPullHooks, turn: Apart) -> None:
        """Join for the first time, or come back after this node fell out of the run.

        Raises:
            NodeLost: it fell out too often.
            JoinError: the run does not take it.
            RunFinished: the run has ended.
        """
        node = strategy.node
        if node.apart:
            log.warning("out of the run: %s; coming back as a newcomer", node.apart)
            self._restarts.use(turn.reason)
            standing = node.open_again(strategy.past_now(), self._restarts)
            if not standing.newcomer:
                node.ask_seat(strategy.fingerprint)
                return  # nobody else is left: it goes on from its own state
            # A standby that fell out while it waited still is one.
            at_round = max(self._standby_until, strategy.settings.join_at_round)
            node.ask_seat(strategy.fingerprint, at_round)
        try:
            pull.join(strategy)
        except JoinError:
            if not node.apart:
                raise

    def stand_by(self, strategy: Rounds, round_: int) -> None:
        """Its seat is given back: ask for one again when the run has begun that round.

        Raises:
            JoinError: the run does not take it.
            RunFinished: the run has ended.
        """
        node = strategy.node
        node.log("stand-by", round=round_)
        self._standby_until = round_
        node.open_again(strategy.past_now(), self._restarts)
        node.ask_seat(strategy.fingerprint, round_)

    def state_dict(self) -> dict[str, Any]:
        """The ledger: an epoch resumed in its middle goes on where it was."""
        return {} if self.samples is None else {"ledger": self.samples.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what a checkpoint says (a newcomer has its ledger from the members)."""
        if self.samples is None:
            self.resumed = state.get("ledger", {})

    def round_finished(self) -> None:
        """This node is well, and has its seat."""
        self._standby_until = -1
        self._restarts.reset()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Log ``chaos/…`` with whatever else is logged at this step."""
        figures = trainer.strategy.figures()
        if figures:
            pl_module.log_dict(figures, on_step=True, on_epoch=False, batch_size=1)


class ShardPull(ShardPullHooks, pl.Callback):
    __doc__ = ShardPullHooks.__doc__


class SelfHealing(SelfHealingHooks, pl.Callback):
    __doc__ = SelfHealingHooks.__doc__

    @override
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        SelfHealingHooks.on_train_batch_end(self, trainer, pl_module)


def ensured(callbacks: list[Any], kind: type[C]) -> C:
    """The first callback of that kind; a new one, added to the others, if there is none."""
    for callback in callbacks:
        if isinstance(callback, kind):
            return callback
    added = kind()
    callbacks.append(added)
    return added
