"""Small fits, one after another in one process, whose outcome plain torch can compute again.

``exercise.py CASE…`` leaves the final parameters of each in ``<node>.<case>.pt`` in the directory
of the run logs.  Imported by tests, it tells what each case trains.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, TensorDataset

Batch = list[Tensor]


def dataset(size: int) -> TensorDataset:
    """Pairs to learn from, and the index of each."""
    x = torch.randn(size, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x.sum(dim=1, keepdim=True).sin(), torch.arange(size))


class Lesson(pl.LightningModule):
    """A module that tells its losses apart from how they are minimised.

    Attributes:
        silent: ``training_step`` has no loss for a batch that holds one of these samples.
    """

    silent: frozenset[int] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Linear(4, 8)
        self.heads = nn.ModuleList(nn.Linear(8, 1) for _ in range(2))

    def losses(self, batch: Batch) -> list[Tensor]:
        """One mean loss per optimizer."""
        x, y, _ = batch
        return [F.mse_loss(self.heads[0](self.body(x).relu()), y)]

    def speaks(self, batch: Batch) -> bool:
        return self.silent.isdisjoint(batch[2].tolist())

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        return self.losses(batch)[0] if self.speaks(batch) else None

    def optimizers_made(self) -> list[Optimizer]:
        return [SGD(self.parameters(), lr=0.1, momentum=0.9)]

    def configure_optimizers(self) -> Any:
        (optimizer,) = self.optimizers_made()
        scheduler = {"scheduler": ExponentialLR(optimizer, 0.97), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class Heads(Lesson):
    """Which head a batch goes through depends on its first sample: the other has no gradient."""

    silent = frozenset((9,))

    def losses(self, batch: Batch) -> list[Tensor]:
        x, y, index = batch
        head = self.heads[int(index[0]) // 16 % 2]
        return [F.mse_loss(head(self.body(x).relu()), y)]


class Normed(Lesson):
    """Its buffers change, and what a sample gives depends on the others in its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.2)

    def losses(self, batch: Batch) -> list[Tensor]:
        x, y, index = batch
        return super().losses([self.dropout(self.norm(x)), y, index])

    def optimizers_made(self) -> list[Optimizer]:
        return [AdamW(self.parameters(), lr=0.01)]


class Manual(Lesson):
    """Two optimizers, each for a loss of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def losses(self, batch: Batch) -> list[Tensor]:
        x, y, _ = batch
        hidden = self.body(x).relu()
        first = F.mse_loss(self.heads[0](hidden), y)
        return [first, F.l1_loss(self.heads[1](hidden.detach()), y)]

    def training_step(self, batch: Batch, index: int) -> None:
        if not self.speaks(batch):
            return
        optimizers = self.optimizers()
        if not isinstance(optimizers, list):
            optimizers = [optimizers]
        for which, optimizer in enumerate(optimizers):
            optimizer.zero_grad()
            self.manual_backward(self.losses(batch)[which])
            optimizer.step()

    def optimizers_made(self) -> list[Optimizer]:
        body = [*self.body.parameters(), *self.heads[0].parameters()]
        return [SGD(body, lr=0.1), AdamW(self.heads[1].parameters(), lr=0.01)]

    def configure_optimizers(self) -> Any:
        return self.optimizers_made()


class Skipping(Manual):
    """One optimizer, and sometimes no step at all, in the same round at both members."""

    silent = frozenset((17, 25))

    def losses(self, batch: Batch) -> list[Tensor]:
        return super().losses(batch)[:1]

    def optimizers_made(self) -> list[Optimizer]:
        return super().optimizers_made()[:1]


class SkippingAlone(Skipping):
    """No step at one member only: the parameters would differ from then on."""

    silent = frozenset((17,))


class Quasi(Lesson):
    """LBFGS asks for the loss several times in a step."""

    def optimizers_made(self) -> list[Optimizer]:
        return [LBFGS(self.parameters(), lr=0.1, max_iter=4)]


class Case:
    """What is trained, and how.

    Args:
        module: makes the module, the same everywhere.
        size: samples.
        batch: samples per member and micro-batch.
        loader: further arguments of the DataLoader.
        trainer: further arguments of the Trainer.
    """

    def __init__(
        self,
        module: Callable[[], Lesson],
        size: int,
        batch: int,
        loader: dict[str, Any] | None = None,
        **trainer: Any,
    ) -> None:
        self.module = module
        self.size, self.batch = size, batch
        self.loader_arguments = loader or {}
        self.trainer_arguments = {"max_epochs": 2, **trainer}

    def loader(self) -> DataLoader[Any]:
        return DataLoader(dataset(self.size), batch_size=self.batch, **self.loader_arguments)

    def fit(self, strategy: Any, *callbacks: pl.Callback) -> Lesson:
        """Train with this strategy; the module when it is done."""
        trainer = pl.Trainer(
            strategy=strategy,
            callbacks=[*callbacks],
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **self.trainer_arguments,
        )
        module = self.module()
        trainer.fit(module, self.loader())
        return module


CASES = {
    "mean": Case(Lesson, 61, 8, {"shuffle": True}, gradient_clip_val=0.1),
    "accumulated": Case(Heads, 53, 4, accumulate_grad_batches=2),
    "full batches": Case(
        Lesson,
        61,
        8,
        {"drop_last": True},
        gradient_clip_val=0.05,
        gradient_clip_algorithm="value",
    ),
    "normed": Case(Normed, 61, 8, {"shuffle": True}),
    "manual": Case(Manual, 61, 8),
    "skipping": Case(Skipping, 61, 8),
    "quasi": Case(Quasi, 32, 8, max_epochs=3),
}


WRONG = {"skipping alone": Case(SkippingAlone, 61, 8)}


def main() -> None:
    torch.set_num_threads(1)
    pl.seed_everything(7, verbose=False)
    for name in sys.argv[1:]:
        module = (CASES | WRONG)[name].fit("chaos")
        path = Path(os.environ["CHAOS_LOG"]) / f"{os.environ['CHAOS_NODE']}.{name}.pt"
        torch.save(module.state_dict(), path)


if __name__ == "__main__":
    main()
