"""Plays the parts of several members, one after another, on one model.

The oldest member's part is Lightning's own loop.  When its last backward of a round is done, the
others' micro-batches go through the same model, each member beginning with the buffers that all
had when the round began.  Chance needs no care: it begins anew with every micro-batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from lightning_chaos.collective.reducer import Contribution
from lightning_chaos.collective.roots import Floats
from lightning_chaos.data.ledger import Slice
from lightning_chaos.data.loader import elastic_loader
from lightning_chaos.errors import ReplayError
from lightning_chaos.replay.memory import Buffers, Moment
from lightning_chaos.skin.gradients import Gradients
from lightning_chaos.skin.samples import Samples


@dataclass(frozen=True, slots=True)
class Part:
    """What one member gives to an operation."""

    blob: bytes
    vector: Floats
    """Overwritten by the part after the next."""
    weight: float


class Parts(Gradients):
    """The strategy's side of a replay; nothing here runs in a run with others."""

    def __init__(self, **lightning: Any) -> None:
        super().__init__(**lightning)
        self._buffers: Buffers | None = None
        self._batches: Iterator[Any] | None = None
        self._at_begin: Moment = {}
        self._after: list[Moment] = []

    @property
    def shares(self) -> Sequence[Slice]:
        """Whose samples of the round are which, by the ledger, oldest sharer first."""
        assert self._samples is not None
        return self._samples.shares

    def get_ready(self) -> None:
        """Training is about to begin.

        Raises:
            ReplayError: the module trains in a way that cannot be played.
        """
        module = self.lightning_module  # type: ignore[attr-defined]
        if not module.automatic_optimization:
            raise ReplayError("a module with manual optimization cannot be replayed")
        if self.settings.buffers == "local":
            raise ReplayError(
                'with buffers="local" members end with states of their own: there is no one end'
            )
        self._buffers = Buffers(module)

    def read_for_others(self, dataloader: DataLoader[Any], samples: Samples) -> None:
        """The other members' batches come from the user's loader, too.

        Raises:
            DataError: as for :func:`elastic_loader`.
        """
        # Made now, since making an iterator draws from torch's generator.
        self._batches = iter(elastic_loader(dataloader, _Taken(samples)))

    def begin_parts(self) -> None:
        """A round begins: every member has the buffers that there are now."""
        assert self._buffers is not None
        self._at_begin = self._buffers.remember()
        self._after.clear()

    def end_own_part(self) -> None:
        """The first member's passes are done."""
        assert self._buffers is not None
        self._after.append(self._buffers.remember())

    def play(self, share: Slice) -> Part:
        """The next member's passes of the round over these samples."""
        assert self._buffers is not None and self._batches is not None
        assert self._samples is not None
        self._buffers.restore(self._at_begin)
        for parameter in self.lightning_module.parameters():  # type: ignore[attr-defined]
            parameter.grad = None
        count = self._samples.take(share)
        first = self._trainer.fit_loop.epoch_loop.batch_idx + 1 - count
        with self.block_backward_sync():
            for index in range(first, first + count):
                self._run(next(self._batches), index)
        self._after.append(self._buffers.remember())
        blob, given, weight = self._draw_up()
        return _part(blob, given, weight)

    def _run(self, batch: Any, index: int) -> None:
        """What Lightning's loop does with a batch up to the end of backward."""
        trainer, module = self._trainer, self.lightning_module  # type: ignore[attr-defined]
        loop = trainer.fit_loop.epoch_loop
        batch = self.precision_plugin.convert_input(batch)  # type: ignore[attr-defined]
        batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
        batch = self.batch_to_device(batch, dataloader_idx=0)  # type: ignore[attr-defined]
        kwargs = loop._build_kwargs(OrderedDict(), batch, index)
        closure = loop.automatic_optimization._make_closure(kwargs, trainer.optimizers[0], index)
        closure._zero_grad_fn = None  # it counts, and the gradients are gone already
        closure()

    def end_parts(self) -> None:
        """All have played: the module stands as after the first member's passes."""
        assert self._buffers is not None
        self._buffers.restore(self._after[0])

    def play_buffers(self, bitmaps: Sequence[bytes], member: int, weight: float) -> Part:
        """A member's part in the operation that makes buffers active.

        Args:
            bitmaps: of the buffers that changed, every member's.
            member: its place among those that played.
            weight: of its samples.
        """
        assert self._buffers is not None and self._reducer is not None
        names = self._reducer.newly_active(bitmaps)
        active = self._reducer.state_dict()["active"]  # these have their mean already
        self._buffers.restore(self._after[member], but=active)
        given = self._reducer.extra_contribution(names, weight)
        return _part(given.values, given, weight)


class _Taken:
    """Source of the loader that reads the other members' batches."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def next_indices(self) -> list[int]:
        return self._samples.draw()

    def batches(self) -> int:
        return self._samples.batches()


def _part(blob: bytes, given: Contribution, weight: float) -> Part:
    return Part(blob, given.vector.numpy(), weight)
