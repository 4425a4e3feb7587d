"""Makes ``Trainer(strategy="chaos")`` known without an import of this package.

Lightning has no entry point for strategies, but torch has one for device backends (group
``torch.backends``): at the end of ``import torch`` it calls :func:`autoload`.  Both of
Lightning's namespaces import torch before their strategies, so a finder installed then sees
them come, and adds the name to each registry as soon as it exists.  What is added is a
function: the strategy itself is imported when a Trainer asks for it.

This module runs in every process that imports torch, so it imports next to nothing, and no
error in it may leave it: torch would turn it into a failed ``import torch``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from lightning_chaos import agent

log = logging.getLogger("lightning_chaos")

NAME = "chaos"
DESCRIPTION = "Train with machines that come and go (lightning-chaos)"

NAMESPACES = {
    "lightning.pytorch.strategies": "lightning.pytorch",
    "pytorch_lightning.strategies": "pytorch_lightning",
}
"""Modules that hold a registry, and the namespace whose base classes its Trainer expects."""


threads_at_first = 0
"""Torch's own choice of threads, before the user's script could make another; 0 if unknown."""


def autoload() -> None:
    """Register ``"chaos"`` in the registries there are and in those that come; never raises."""
    global threads_at_first
    try:
        if "torch" in sys.modules:
            threads_at_first = threads_at_first or sys.modules["torch"].get_num_threads()
            # Not in the peer, which has no torch: it ends with the worker, after its last word.
            agent.end_with_agent()
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        for name in NAMESPACES:
            module = sys.modules.get(name)
            if module is not None:
                _register(module, NAMESPACES[name])
    except Exception as error:
        _warn(error)


def _register(module: ModuleType, namespace: str) -> None:
    registry = module.StrategyRegistry
    if NAME not in registry:
        registry.register(NAME, _factory(namespace), description=DESCRIPTION)


def _factory(namespace: str) -> Callable[..., Any]:
    """What the registry calls with the strategy's arguments when a Trainer names it."""

    def chaos_strategy(**settings: Any) -> Any:
        from lightning_chaos.strategy import strategy_class

        return strategy_class(namespace)(**settings)

    return chaos_strategy


def _warn(error: Exception) -> None:
    log.warning(
        'strategy="%s" could not be made known to Lightning (%s: %s); pass '
        "strategy=lightning_chaos.ChaosStrategy() instead",
        NAME,
        type(error).__name__,
        error,
    )


class _Finder:
    """Lets the other finders find a module with a registry, and registers once it has run."""

    def __init__(self) -> None:
        self._asking: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Part of the import system's finder protocol; None leaves the module to the others."""
        if name not in NAMESPACES or name in self._asking:
            return None
        self._asking.add(name)  # a finder that asks all finders, as this one does, comes back here
        try:
            spec = _ask_others(self, name, path, target)
        finally:
            self._asking.discard(name)
        if spec is not None and spec.loader is not None:
            try:
                _register_after(spec.loader, name)
            except Exception as error:
                _warn(error)
        return spec


def _ask_others(
    asking: _Finder, name: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    for finder in list(sys.meta_path):
        find_spec = getattr(finder, "find_spec", None)
        if finder is not asking and find_spec is not None:
            spec: ModuleSpec | None = find_spec(name, path, target)
            if spec is not None:
                return spec
    return None


def _register_after(loader: Any, name: str) -> None:
    """Make this one loader register after it has run the module.

    The loader stays what it is (resources, sources and reloading depend on its type); only this
    instance's ``exec_module`` is covered, until it has run that module once.
    """
    run = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        if module.__name__ != name:  # a loader may serve many modules (a zip file's does)
            run(module)
            return
        vars(loader).pop("exec_module", None)
        run(module)
        try:
            _register(module, NAMESPACES[name])
        except Exception as error:
            _warn(error)

    loader.exec_module = exec_module
