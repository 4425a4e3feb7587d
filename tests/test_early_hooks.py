"""Gradients leave during backward unless a hook of the user's may still change them."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import pytorch_lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping, LambdaCallback

from lightning_chaos.callbacks import SelfHealing, ShardPull
from lightning_chaos.skin.gradients import has_own_hook


class Plain(pl.LightningModule):
    pass


class Changing(Plain):
    def on_after_backward(self) -> None:
        pass


class Inheriting(Changing):
    pass


class Looking(Callback):
    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("of", "own"),
    [
        (Plain(), False),
        (pytorch_lightning.LightningModule(), False),
        (EarlyStopping("loss"), False),
        (ShardPull(), False),
        (SelfHealing(), False),
        (LambdaCallback(), False),
        (Changing(), True),
        (Inheriting(), True),
        (Looking(), True),
        (LambdaCallback(on_after_backward=lambda *_: None), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_hook_is_the_users_own_unless_lightning_defines_it(of: object, own: bool) -> None:
    assert has_own_hook(of, "on_after_backward") is own
