"""What goes wrong around a fit is said once, clearly, and leaves nothing behind."""

from __future__ import annotations

import io
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from scripts.exercise import Lesson, dataset
from torch.utils.data import DataLoader

from lightning_chaos import ChaosStrategy
from lightning_chaos.errors import AddressError, ConfigError, JoinError, StateError
from lightning_chaos.monitor.runlog import read_log

Fit = Callable[..., None]


@pytest.fixture
def fit(tmp_path: Path) -> Iterator[Fit]:
    """Fits a small module alone; the run log goes to ``tmp_path``."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(
        module: pl.LightningModule | None = None, ckpt_path: Path | None = None, **strategy: Any
    ) -> None:
        mine = {"run": uuid.uuid4().hex, "node": "a", "linger": 0.0, "log_dir": tmp_path}
        trainer = pl.Trainer(
            strategy=ChaosStrategy(**(mine | strategy)),
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader = DataLoader(dataset(16), batch_size=4)
        trainer.fit(module or Lesson(), loader, ckpt_path=ckpt_path)

    yield run
    torch.set_num_threads(before)


# ---- what is said ------------------------------------------------------------------------------


def test_a_host_of_another_machine_is_named(fit: Fit) -> None:
    with pytest.raises(AddressError, match=r"192\.0\.2\.1.*CHAOS_HOST"):
        fit(host="192.0.2.1", insecure=True)


def test_a_run_log_that_cannot_be_written_is_named(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/logs.*CHAOS_LOG"):
        fit(log_dir=tmp_path / "file" / "logs")


def test_a_fit_that_did_not_begin_is_tried_again_in_the_same_run(fit: Fit, tmp_path: Path) -> None:
    run = uuid.uuid4().hex
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AddressError):
        fit(run=run, port=taken.getsockname()[1])
    with pytest.raises(JoinError):
        fit(run=run, join_at_round=1, start_timeout=0.05)
    fit(run=run)
    assert [e["run"] for e in read_log(tmp_path) if e.event == "start"] == [run]


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def half_a_checkpoint() -> bytes:
    whole = saved({"global_step": 3, "state_dict": Lesson().state_dict()})
    return whole[: len(whole) // 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (half_a_checkpoint(), "PytorchStreamReader"),
        (b"", "EOFError"),
        (b"hello", "Error"),
        (saved([1]), "it holds a list"),
    ],
    ids=["half", "empty", "text", "list"],
)
def test_a_checkpoint_that_is_none_is_named(
    fit: Fit, tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "bad.ckpt"
    path.write_bytes(content)
    with pytest.raises(StateError) as error:
        fit(ckpt_path=path)
    assert f"the checkpoint {path} cannot be loaded" in str(error.value)
    assert said in str(error.value)


def test_a_checkpoint_that_is_not_there_is_named(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        fit(ckpt_path=tmp_path / "none.ckpt")


def test_a_checkpoint_that_cannot_be_written_is_named(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "x.ckpt"

    class Saving(Lesson):
        def on_train_batch_end(self, *_: Any) -> None:
            self.trainer.save_checkpoint(path)

    with pytest.raises(StateError, match=f"{path} cannot be written.* see to its disk"):
        fit(Saving())


# ---- what others are told ----------------------------------------------------------------------


class Mute(Exception):
    """Its message is one more mistake."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(os.fsdecode(b"caf\xe9\n.jpg")), r"FileNotFoundError: caf\udce9 .jpg"),
        (ValueError("x" * (17 << 20)), f"ValueError: {'x' * 988}…"),
        (Mute(), "Mute"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_told_to_others_as_a_line_whatever_it_says(
    fit: Fit, tmp_path: Path, error: Exception, said: str
) -> None:
    class Wrong(Lesson):
        def on_train_batch_end(self, *_: Any) -> None:
            raise error

    with pytest.raises(type(error)):
        fit(Wrong())
    assert [e["reason"] for e in read_log(tmp_path) if e.event == "end"] == [said]
