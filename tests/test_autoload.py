"""``strategy="chaos"`` is known to Lightning without an import of this package."""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lightning_chaos import _autoload

FIRST_IMPORTS = (
    "import lightning",
    "import lightning.pytorch",
    "import lightning.pytorch.strategies",
    "from lightning.pytorch import Trainer",
    "import lightning.fabric.strategies; import lightning.pytorch",
    "import pytorch_lightning",
    "import pytorch_lightning.strategies",
    "import torchmetrics; from pytorch_lightning import Trainer",
    "from lightning.pytorch.trainer.connectors.accelerator_connector import StrategyRegistry",
)

# What Lightning needs is imported once; each order of Lightning's own imports runs in a fork.
ORDERS = """
import json, os, sys
import torch, torchmetrics
import torch.distributed.fsdp, torch.distributed.checkpoint, torch._dynamo, torch.onnx.ops
import rich.progress
for first in json.loads(sys.argv[1]):
    if os.fork():
        assert os.wait()[1] == 0, first
        continue
    exec(first)
    assert "lightning_chaos.strategy" not in sys.modules, first
    registered = {
        name.partition(".strategies")[0]: "chaos" in sys.modules[name].StrategyRegistry
        for name in ("lightning.pytorch.strategies", "pytorch_lightning.strategies")
        if name in sys.modules
    }
    print(json.dumps([first, registered]), flush=True)
    os._exit(0)
"""


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, outside this directory."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        cwd=Path(sys.prefix),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.cold
def test_the_name_is_registered_whatever_is_imported_first() -> None:
    run = python(ORDERS, json.dumps(FIRST_IMPORTS))
    assert run.returncode == 0, run.stderr
    seen = dict(json.loads(line) for line in run.stdout.splitlines())
    assert list(seen) == list(FIRST_IMPORTS)
    for first, registered in seen.items():
        namespace = "pytorch_lightning" if "pytorch_lightning" in first else "lightning.pytorch"
        assert registered[namespace], first
        assert all(registered.values()), first


@pytest.mark.cold
def test_a_trainer_finds_the_name_in_the_environment() -> None:
    code = """
import sys
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import StrategyRegistry
asked = []
StrategyRegistry["chaos"]["strategy"] = lambda **settings: asked.append(settings) or 1 / 0
try:
    Trainer(accelerator="cpu", logger=False)
except ZeroDivisionError:
    print(asked, "lightning_chaos" in sys.modules)
"""
    run = python(code, PL_TRAINER_STRATEGY="chaos")
    assert run.stdout == "[{}] True\n", run.stderr


def test_the_package_and_its_hook_import_nothing_heavy() -> None:
    run = python(
        "import sys, lightning_chaos;"
        "heavy = {'torch', 'lightning', 'pytorch_lightning', 'numpy', 'msgspec', 'asyncio'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert run.stdout == "[]\n", run.stderr


@pytest.mark.cold
def test_an_error_in_the_hook_does_not_break_torch() -> None:
    code = """
from lightning_chaos import _autoload
def broken(*_): raise RuntimeError("no finder today")
_autoload._Finder.__init__ = broken
import sys
sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, _autoload._Finder)]
import torch
print(torch.ones(2).sum().item())
"""
    run = python(code)
    assert run.stdout == "2.0\n", run.stderr
    assert "RuntimeError: no finder today" in run.stderr
    assert "ChaosStrategy()" in run.stderr


NAMESPACE = "pytorch_lightning.strategies"
REGISTRY = """
class Registry(dict):
    def register(self, name, strategy, description):
        self[name] = strategy
StrategyRegistry = Registry()
"""


@pytest.fixture
def other_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in Lightning's place, not yet imported; returns its module of strategies."""
    package = tmp_path / "pytorch_lightning"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in [n for n in sys.modules if n.partition(".")[0] == "pytorch_lightning"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("pytorch_lightning", NAMESPACE):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))  # removed again after the test
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return package / "strategies.py"


def load() -> Any:
    """Import the module of strategies anew."""
    sys.modules.pop(NAMESPACE, None)
    return importlib.import_module(NAMESPACE)


def test_a_lightning_without_registry_is_left_alone_with_a_warning(
    other_lightning: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other_lightning.write_text("answer = 42\n")
    with caplog.at_level(logging.WARNING, "lightning_chaos"):
        assert load().answer == 42
    assert "StrategyRegistry" in caplog.text
    assert "ChaosStrategy()" in caplog.text


def test_an_error_in_the_module_itself_stays_the_users_to_see(other_lightning: Path) -> None:
    other_lightning.write_text("raise ImportError('half an installation')\n")
    with pytest.raises(ImportError, match="half an installation"):
        load()


def test_a_module_imported_anew_is_registered_anew(other_lightning: Path) -> None:
    other_lightning.write_text(REGISTRY)
    first, second = load(), load()
    assert first is not second
    assert list(first.StrategyRegistry) == list(second.StrategyRegistry) == ["chaos"]


def test_a_name_that_is_taken_stays_with_its_owner(other_lightning: Path) -> None:
    other_lightning.write_text(REGISTRY + "StrategyRegistry['chaos'] = 'theirs'\n")
    assert load().StrategyRegistry == {"chaos": "theirs"}


def test_the_loader_stays_what_it_was(other_lightning: Path) -> None:
    other_lightning.write_text(REGISTRY)
    loader = load().__spec__.loader
    assert type(loader).__name__ == "SourceFileLoader"
    assert "exec_module" not in vars(loader)
    assert loader.get_source(NAMESPACE) == REGISTRY


def test_finders_that_ask_each_other_come_to_an_end(
    other_lightning: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_lightning.write_text(REGISTRY)
    other = _autoload._Finder()
    monkeypatch.setattr(sys, "meta_path", [other, *sys.meta_path])
    assert list(load().StrategyRegistry) == ["chaos"]


def test_the_hook_is_installed_once() -> None:
    _autoload.autoload()
    _autoload.autoload()
    assert sum(isinstance(finder, _autoload._Finder) for finder in sys.meta_path) == 1
