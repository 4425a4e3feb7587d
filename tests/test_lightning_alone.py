"""One node alone: Lightning works as ever, with the strategy by name and without a word more."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import (
    Callback,
    GradientAccumulationScheduler,
    ModelCheckpoint,
)
from scripts.exercise import CASES, Case, Heads, Lesson, Normed, dataset
from torch.utils.data import DataLoader

from lightning_chaos import ChaosStrategy
from lightning_chaos.callbacks import SelfHealing, ShardPull
from lightning_chaos.skin.chance import begin_chance
from lightning_chaos.testing.cluster import LogTail


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def strategy(tmp_path: Path) -> ChaosStrategy:
    """Of a run of its own that does not linger."""
    return ChaosStrategy(run=uuid.uuid4().hex, node="a", linger=0.0, log_dir=tmp_path / "logs")


def trainer(strategy: Any, **arguments: Any) -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
    }
    return pl.Trainer(accelerator="cpu", devices=1, strategy=strategy, **(quiet | arguments))


def assert_equal(one: Lesson, other: Lesson, *, bits: bool) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        if bits:
            assert torch.equal(a, b), name
        else:
            torch.testing.assert_close(a, b, msg=name)


class SameChance(Callback):
    """Draws for a fit without the strategy what the strategy would: by seed, epoch and samples."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.seed = torch.initial_seed()

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        begin_chance(self.seed, trainer.current_epoch, self.batch * index, torch.device("cpu"))


@pytest.mark.parametrize(
    ("case", "bits"),
    [
        (Case(Normed, 64, 8, gradient_clip_val=0.1), True),
        # A mean over a number of samples that is no power of two is rounded once more.
        (Case(Normed, 61, 8, gradient_clip_val=0.1), False),
        (Case(Lesson, 64, 8, accumulate_grad_batches=2), True),
        (Case(Heads, 61, 8), False),
        (Case(Lesson, 61, 8, {"drop_last": True}), True),
        (CASES["manual"], False),
        (CASES["quasi"], True),
    ],
    ids=["normed", "uneven", "accumulated", "silent heads", "full batches", "manual", "quasi"],
)
def test_one_node_trains_what_lightning_trains(
    strategy: ChaosStrategy, case: Case, bits: bool
) -> None:
    assert_equal(case.fit("auto", SameChance(case.batch)), case.fit(strategy), bits=bits)


class AllStages(Lesson):
    """With every stage, and a word on what it sees of the cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.views: list[tuple[str, ...]] = []
        self.seen: dict[str, int] = {}

    def on_chaos_view(self, trainer: pl.Trainer, view: Any) -> None:
        self.views.append(tuple(m.node for m in view.members))

    def shared_step(self, stage: str, batch: list[torch.Tensor]) -> None:
        self.seen[stage] = self.seen.get(stage, 0) + len(batch[0])
        self.log(f"{stage}_loss", self.losses(batch)[0], sync_dist=True)

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        self.shared_step("val", batch)

    def test_step(self, batch: list[torch.Tensor], index: int) -> None:
        self.shared_step("test", batch)

    def predict_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return batch[2]


class Loaders(pl.LightningDataModule):
    """All stages from one data set."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def _loader(self, stage: str) -> DataLoader[Any]:
        self.calls.append(stage)
        return DataLoader(dataset(24), batch_size=8)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        return self._loader("predict")


def test_all_stages_and_a_second_fit_in_one_process(strategy: ChaosStrategy) -> None:
    given = ShardPull(show=False), SelfHealing(restarts=1)
    train = trainer(strategy, callbacks=[*given], max_epochs=2, reload_dataloaders_every_n_epochs=1)
    module, loaders = AllStages(), Loaders()
    assert train.validate(module, loaders, verbose=False)[0]["val_loss"] > 0
    train.fit(module, loaders)
    assert train.global_step == 6
    assert [c for c in train.callbacks if isinstance(c, ShardPull | SelfHealing)] == [*given]
    assert module.views == [("a",)]
    assert loaders.calls.count("train") == 2
    # validate(), the sanity check's two batches, and both epochs
    assert module.seen["val"] == 24 + 16 + 2 * 24
    logged = train.callback_metrics
    assert logged["chaos/members"] == 1
    assert {"chaos/round_s", "chaos/wait_s", "chaos/samples_per_s"} <= set(logged)

    assert train.test(module, loaders, verbose=False)[0]["test_loss"] > 0
    assert module.seen["test"] == 24
    predicted = train.predict(module, loaders)
    assert predicted is not None
    assert torch.cat([p for p in predicted]).tolist() == list(range(24))

    train.fit_loop.max_epochs = 3
    train.fit(module, loaders)
    assert train.global_step == 9
    events = LogTail(Path(strategy.settings.log_dir)).poll()
    first, second = [str(e["run"]) for e in events if e.event == "start"]
    assert second == f"{first}+1"
    assert [e["stage"] for e in events if e.event == "metrics"] == ["validate", "test", "predict"]


def test_accumulation_may_change_with_the_epoch(strategy: ChaosStrategy) -> None:
    schedule = GradientAccumulationScheduler({1: 2, 2: 4})
    train = trainer(strategy, callbacks=[schedule], max_epochs=4)
    train.fit(Lesson(), DataLoader(dataset(64), batch_size=8))
    assert train.global_step == 8 + 4 + 2 + 2


class Indices(Lesson):
    """Remembers what it has trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.used: list[int] = []

    def losses(self, batch: list[torch.Tensor]) -> list[torch.Tensor]:
        self.used += batch[2].tolist()
        return super().losses(batch)


def test_an_epoch_resumed_in_its_middle_takes_the_samples_that_are_left(tmp_path: Path) -> None:
    loader = DataLoader(dataset(61), batch_size=8, shuffle=True)

    def fit(path: str | None, **arguments: Any) -> tuple[pl.Trainer, Indices]:
        saves = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3)
        strategy = ChaosStrategy(run=uuid.uuid4().hex, node="a", linger=0.0)
        train = trainer(strategy, callbacks=[saves], enable_checkpointing=True, **arguments)
        module = Indices()
        train.fit(module, loader, ckpt_path=path)
        return train, module

    _, first = fit(None, max_steps=3)
    train, second = fit(str(tmp_path / "step=3.ckpt"), max_epochs=2)
    assert train.global_step == 16
    assert len(first.used) == 24
    assert sorted(first.used + second.used[: 61 - 24]) == list(range(61))
    assert sorted(second.used[61 - 24 :]) == list(range(61))


class StepsOf(Callback):
    """Where validation was run."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit_train_batches": 3, "max_epochs": 2},
        {"limit_train_batches": 0.5, "max_epochs": 2},
        {"limit_train_batches": 3, "val_check_interval": 2},
        {"val_check_interval": 3},
        {"val_check_interval": 0.3},
        {"check_val_every_n_epoch": 2, "max_epochs": 4},
        {"check_val_every_n_epoch": None, "val_check_interval": 5, "max_steps": 17},
        {"max_steps": 11, "max_epochs": -1},
        {"min_steps": 11, "max_epochs": 2},
        {"fast_dev_run": 2},
        {"overfit_batches": 2, "max_epochs": 2},
        {"max_epochs": 0},
        {"limit_val_batches": 0.5},
        {"accumulate_grad_batches": 3, "max_epochs": 2},
        {"accumulate_grad_batches": 3, "limit_train_batches": 4, "max_epochs": 2},
        {"accumulate_grad_batches": 2, "val_check_interval": 3},
    ],
    ids=str,
)
def test_steps_and_validations_come_where_lightning_has_them(
    strategy: ChaosStrategy, arguments: dict[str, Any]
) -> None:
    told = []
    for which in ("auto", strategy):
        steps = StepsOf()
        train = trainer(which, callbacks=[steps], **arguments)
        train.fit(AllStages(), Loaders64())
        told.append((steps.steps, train.global_step, train.current_epoch))
    assert told[0] == told[1]


class Loaders64(Loaders):
    def _loader(self, stage: str) -> DataLoader[Any]:
        return DataLoader(dataset(64), batch_size=8)


SCRIPT = """
import sys
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, index):
        return self.layer(batch[0]).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

loader = DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=2)
trainer = pl.Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
                     enable_progress_bar=False, enable_model_summary=False)
trainer.fit(Line(), loader)
print(type(trainer.strategy).__name__, trainer.global_step, "lightning.pytorch" in sys.modules)
print([type(c).__module__.partition(".")[0] for c in trainer.callbacks])
"""


@pytest.mark.cold
def test_the_other_namespace_trains_too_without_a_change_to_the_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PL_TRAINER_STRATEGY": "chaos", "CHAOS_LINGER": "0"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("TwinStrategy 8")
