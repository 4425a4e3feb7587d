"""Which samples this member trains on, and how long Lightning believes the epoch is.

The source behind the elastic loader.  A round begins here, when its first batch is fetched: at
that moment every counter of the Trainer stands between two rounds, so this is also where a view
changes, where a donor holds still, and where a newcomer takes over the state.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from lightning_chaos.data.ledger import (
    Ledger,
    MicroBatch,
    Slice,
    commit,
    micro_batches,
    positions,
    rounds_left,
    samples_in,
    share_out,
)
from lightning_chaos.data.loader import LoaderFacts, permutation
from lightning_chaos.data.paces import Change, Paces, SlowMode
from lightning_chaos.protocol.values import Uid
from lightning_chaos.skin.chance import begin_chance

log = logging.getLogger(__name__)


class Samples:
    """One member's :class:`~lightning_chaos.data.loader.BatchSource`.

    Args:
        trainer: the Trainer that fits.
        facts: of the user's training loader.
        seed: of the permutations; a newcomer takes the run's.
        begin_round: waits until a round may begin; returns (members, own rank) for its samples.
        members: how many members there are before the first round.
        slow: what becomes of slow members.
    """

    def __init__(
        self,
        trainer: Any,
        facts: LoaderFacts,
        seed: int,
        begin_round: Callable[[], tuple[Sequence[Uid], int]],
        members: int,
        slow: SlowMode = "keep",
    ) -> None:
        self._trainer = trainer
        self.facts = facts
        self._begin_round = begin_round
        self.paces = Paces(slow)
        """How fast the members are, and how much each takes of a round."""
        self._sizes = (self._full,) * members
        """Samples of each member in the round."""
        self._queue: deque[MicroBatch] = deque()
        self._micro: MicroBatch | None = None
        self.ledger = Ledger(seed=seed, epoch=-1, size=facts.size)
        self._pending_ledger = self.ledger
        self.slice: Slice = ()
        """This member's samples of the round, until they are committed."""
        self.share = 0
        """How many samples that is."""
        self.shares: tuple[Slice, ...] = ()
        """Everybody's samples of the round, in order of their age."""
        self._silent: set[MicroBatch] = set()
        self.trained_rounds = 0
        """Rounds that this state has seen, since training began."""
        self.trained_samples = 0
        """Samples committed in them."""

    # ---- batches ---------------------------------------------------------------------------

    def next_indices(self) -> list[int] | None:
        """Dataset indices of the next micro-batch; see :class:`BatchSource`."""
        if not self._queue and not self._open():
            return None
        indices = self.draw()
        self._foresee(len(self._queue) + 1, self._pending_ledger)
        return indices

    def draw(self) -> list[int]:
        """Dataset indices of the next micro-batch that was taken; chance begins anew with it."""
        self._micro = self._queue.popleft()
        facts, ledger, places = self.facts, self.ledger, self._micro.positions
        begin_chance(ledger.seed, ledger.epoch, places[0], self._trainer.strategy.root_device)
        order = permutation(ledger.seed, ledger.epoch, facts.size, facts.shuffle)
        return [int(order[position]) for position in places]

    def batches(self) -> int:
        """Batches of a whole epoch with the members there are now."""
        whole, drop = Ledger(seed=0, epoch=0, size=self.facts.size), self.facts.drop_last
        shares = (self._full,) * len(self._sizes)
        planned = self._trainer.accumulate_grad_batches
        return int(planned * rounds_left(whole, shares, drop_last=drop))

    @property
    def committed(self) -> int:
        """Samples of all rounds so far; of a data epoch that is over, all of the dataset."""
        ledger = self.ledger
        return max(ledger.epoch, 0) * ledger.size + ledger.size - ledger.left

    @property
    def weight(self) -> int:
        """Samples behind this member's gradients of the round."""
        return self.share - sum(micro.weight for micro in self._silent)

    def loss_scale(self) -> float:
        """Factor that makes accumulated gradients the mean over the samples of the round.

        Lightning divides each micro-batch's loss by their planned number; where their sizes
        differ, and where one is idle, that is not the mean.
        """
        if self._micro is None or self.share == 0:
            return 1.0
        planned = self._trainer.accumulate_grad_batches
        return float(self._micro.weight * planned / self.share)

    def _open(self) -> bool:
        """Begin a round; False if nothing is left of the epoch."""
        # Until the next round begins everybody foresees the epoch's end with these members and
        # shares, so that all see it at the same round.
        members, rank = self._begin_round()
        self._sizes = self.paces.shares(members, self._full)
        epoch = self._trainer.current_epoch
        if self.ledger.epoch != epoch:
            self.ledger = Ledger(seed=self.ledger.seed, epoch=epoch, size=self.facts.size)
        slices = share_out(self.ledger, self._sizes, drop_last=self.facts.drop_last)
        if not any(slices):
            return False
        self.shares = slices
        self._pending_ledger = commit(self.ledger, slices)
        self.take(slices[rank])
        return True

    def take(self, share: Slice) -> int:
        """These are the samples of the round; returns how many micro-batches they make."""
        self.slice, self.share = share, samples_in(share)
        self._silent.clear()
        # Always the planned number, idle ones at the end of an epoch: Lightning steps at its
        # multiples.
        planned = self._trainer.accumulate_grad_batches
        batches = micro_batches(positions(share), self.facts.batch, planned, self.facts.size)
        self._queue.extend(batches)
        return len(batches)

    # ---- after the round -------------------------------------------------------------------

    def commit(
        self, members: Sequence[Uid], slices: Sequence[Slice], busy_s: Sequence[float]
    ) -> list[Change]:
        """Take what the round's header says; a dead member's samples come again.

        Args:
            members: who contributed, oldest first.
            slices: the samples of each.
            busy_s: for how long each has computed, seconds.

        Returns:
            Who is slow or takes another share from the next round on.
        """
        self.ledger = commit(self.ledger, slices)
        sizes = [samples_in(one) for one in slices]
        committed = sum(sizes)
        self.trained_samples += committed
        self.trained_rounds += committed > 0
        self.slice = ()
        missed = self.ledger != self._pending_ledger
        self._pending_ledger = self.ledger
        if missed and not self._queue:
            self._foresee(0, self.ledger)
        # Without samples it is a further operation of a round that has told its figures.
        return self.paces.note(members, sizes, busy_s, self._full) if committed else []

    def silence(self) -> None:
        """The module computes no gradients for this micro-batch: used up, but with no weight."""
        if self._micro is not None:
            self._silent.add(self._micro)

    def drop(self) -> None:
        """Nothing of the round counts here: this node is out of the run for now."""
        self._queue.clear()
        self._silent.clear()
        self.slice, self.share = (), 0

    def state_dict(self) -> dict[str, Any]:
        """What members share."""
        state: dict[str, Any] = msgspec.to_builtins(self.ledger)
        return state | {"rounds": self.trained_rounds, "samples": self.trained_samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the run's ledger."""
        self.drop()
        self.ledger = msgspec.convert(state, Ledger)
        self._pending_ledger = self.ledger
        self._count_on(state)

    def _count_on(self, state: dict[str, Any]) -> None:
        self.trained_rounds = int(state.get("rounds", 0))
        self.trained_samples = int(state.get("samples", 0))

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint was made, if it was made with this dataset."""
        if not state:
            return
        if state["size"] == self.facts.size:
            self.load_state_dict(state)
        else:
            log.warning(
                "the checkpoint was made with %d samples, there are %d: its epoch begins anew",
                state["size"],
                self.facts.size,
            )
            self._count_on(state)

    # ---- how long the epoch is -------------------------------------------------------------

    @property
    def _done(self) -> int:
        """Batches of this epoch that were fetched before, the same at all members."""
        return int(self._trainer.fit_loop.epoch_loop.batch_progress.current.ready)

    @property
    def _full(self) -> int:
        """Samples of a full share of a round."""
        return int(self.facts.batch * self._trainer.accumulate_grad_batches)

    def _batches_left(self, ledger: Ledger) -> int:
        planned, drop = self._trainer.accumulate_grad_batches, self.facts.drop_last
        return int(planned * rounds_left(ledger, self._sizes, drop_last=drop))

    def _foresee(self, queued: int, ledger: Ledger) -> None:
        """Tell Lightning when its epoch ends, which changes with the members.

        Args:
            queued: micro-batches of this round that Lightning has not got yet.
            ledger: what will be committed after this round.
        """
        trainer, fit, done = self._trainer, self._trainer.fit_loop, self._done
        fetcher = fit._data_fetcher
        total = done + queued + self._batches_left(ledger)
        limit = trainer.limit_train_batches
        if isinstance(limit, int):
            total = min(total, max(limit, done + queued))
        elif limit < 1.0:
            total = max(int(total * limit), done + queued)
        fit.max_batches = total
        fit._combined_loader._limits[:] = [total]
        fetcher.length = fetcher.fetched + total - done
        if queued == 0:  # the batch is out already: it may not be the last after all
            fetcher.done = total <= done
            fit.epoch_loop.batch_progress.is_last_batch = fetcher.done
        if isinstance(trainer.val_check_interval, float) and trainer.val_check_batch is not None:
            trainer.val_check_batch = max(1, int(total * trainer.val_check_interval))
