"""The same strategy and callbacks on the ``pytorch_lightning`` copy of Lightning's classes."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import ParallelStrategy
from typing_extensions import override

from lightning_chaos.callbacks import SelfHealingHooks, ShardPullHooks
from lightning_chaos.strategy import ChaosHooks


class TwinShardPull(ShardPullHooks, pl.Callback):
    __doc__ = ShardPullHooks.__doc__


class TwinSelfHealing(SelfHealingHooks, pl.Callback):
    __doc__ = SelfHealingHooks.__doc__

    @override
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        SelfHealingHooks.on_train_batch_end(self, trainer, pl_module)


class TwinStrategy(ChaosHooks, ParallelStrategy):
    __doc__ = ChaosHooks.__doc__
    pull_class = TwinShardPull
    healing_class = TwinSelfHealing

    @override
    def model_to_device(self) -> None:
        assert self.model is not None
        self.model.to(self.root_device)
