"""A correction between two rounds changes nothing but what differed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from scripts.exercise import CASES, Lesson

from lightning_chaos import ChaosStrategy
from lightning_chaos.replication.image import StateImage, assemble
from lightning_chaos.skin.drift import _put_back, _take_out


class Corrected(ChaosStrategy):
    """Takes over a state like its own before every round, as one whose state had differed."""

    def _begin_round(self) -> tuple[int, int]:
        if self.node.round >= 0:
            shared, local = self._state()
            kept = _take_out(shared, self._own_buffers())
            op = self.node.last_operation
            image = StateImage.of(shared, {}, round=self.node.round + 1, operation=op)
            data = b"".join(image.read(0, image.manifest.total_bytes))
            tree = assemble(image.manifest, bytearray(data))
            _put_back(tree, kept)
            self._put_right(tree, local)
            assert self.node.last_operation == op  # nothing was asked of others
        return super()._begin_round()


class Told(Callback):
    """Counts the hooks that it sees, and has a state."""

    def __init__(self) -> None:
        self.hooks: list[str] = []

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.hooks.append(f"batch {trainer.global_step} {trainer.fit_loop.epoch_loop.batch_idx}")

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.hooks.append(f"epoch {trainer.current_epoch} {module.optimizers().optimizer!r}")

    def state_dict(self) -> dict[str, Any]:
        return {"hooks": [*self.hooks]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.hooks = [*state["hooks"]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("case", "buffers"),
    [("normed", "mean"), ("normed", "local"), ("accumulated", "mean"), ("quasi", "mean")],
)
def test_a_corrected_member_trains_on_where_it_was(case: str, buffers: str) -> None:
    def fit(kind: type[ChaosStrategy]) -> tuple[Lesson, list[str]]:
        told = Told()
        strategy = kind(run=uuid.uuid4().hex, node="a", linger=0.0, buffers=buffers)
        torch.manual_seed(5)
        return CASES[case].fit(strategy, told), told.hooks

    (plain, expected), (corrected, hooks) = fit(ChaosStrategy), fit(Corrected)
    assert hooks == expected
    for (name, a), b in zip(
        plain.state_dict().items(), corrected.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
