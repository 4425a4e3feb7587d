"""A Trainer's whole state as a tree, and back (design §7, docs/state.md).

The *shared* part is what a faithful resume needs and what members hold in common: parameters,
buffers, optimizers, schedulers, precision, loop counters, ledger.  The *local* part is one
member's own: callbacks' states and where its loggers write; a newcomer starts with a copy of
the oldest member's.  Both are taken between two rounds, where every progress counter that is
ready is also completed.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

_NOT_SENT = ("pytorch-lightning_version", "callbacks", "hparams_name", "hyper_parameters")
_NOT_SENT_PREFIX = ("datamodule_hparams", "datamodule_hyper", "hparams_type")


def take(trainer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(shared, local) as trees of plain values and live tensors; nothing is copied."""
    dump = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    callbacks = dump.get("callbacks", {})
    checkpoint = {
        key: value
        for key, value in dump.items()
        if key not in _NOT_SENT and not key.startswith(_NOT_SENT_PREFIX)
    }
    shared = {"checkpoint": checkpoint, "unsaved_buffers": _unsaved_buffers(trainer)}
    return shared, {"callbacks": callbacks, "loggers": _logger_versions(trainer)}


def give(trainer: Any, shared: dict[str, Any], local: dict[str, Any]) -> None:
    """Make this Trainer what the other one was; only between two rounds, while it fits.

    Raises:
        Exception: whatever a ``load_state_dict`` of model, optimizer or callback raises.
    """
    _adopt_paths(trainer, local)
    connector = trainer._checkpoint_connector
    checkpoint = {
        **shared["checkpoint"],
        "callbacks": local["callbacks"],
        "pytorch-lightning_version": version("lightning"),
    }
    connector._loaded_checkpoint = checkpoint
    try:
        connector.restore_datamodule()
        connector.restore_model()
        connector.restore_callbacks()
        connector.restore_precision_plugin_state()
        connector.restore_optimizers_and_schedulers()
    finally:
        connector._loaded_checkpoint = {}
    _restore_progress(trainer.fit_loop, checkpoint["loops"]["fit_loop"])
    buffers = dict(trainer.lightning_module.named_buffers())
    with torch.no_grad():
        for name, value in shared["unsaved_buffers"].items():
            buffers[name].copy_(value)


def _unsaved_buffers(trainer: Any) -> dict[str, torch.Tensor]:
    """Buffers that ``state_dict`` leaves out (``persistent=False``)."""
    module = trainer.lightning_module
    saved = module.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in module.named_buffers() if name not in saved}


def _restore_progress(loop: Any, states: dict[str, Any], prefix: str = "") -> None:
    """Counters of this loop and those below it.

    Not ``loop.load_state_dict``: that marks every loop as restarting from a checkpoint, and the
    epoch that is running would begin anew.
    """
    from lightning.pytorch.loops.loop import _Loop as new
    from pytorch_lightning.loops.loop import _Loop as old

    loop._load_from_state_dict(dict(states), prefix)
    for name, child in vars(loop).items():
        if isinstance(child, new | old):
            _restore_progress(child, states, f"{prefix}{name}.")


def _logger_versions(trainer: Any) -> list[Any]:
    versions = [getattr(logger, "version", None) for logger in trainer.loggers]
    return [v if isinstance(v, int | str) else None for v in versions]


def _adopt_paths(trainer: Any, local: dict[str, Any]) -> None:
    """Loggers and checkpoints go on where the run writes, not in a version of their own."""
    before = trainer.log_dir
    for logger, version in zip(trainer.loggers, local["loggers"], strict=False):
        if version is not None and getattr(logger, "_version", None) is not None:
            logger._version = version
    after = trainer.log_dir
    for callback in trainer.checkpoint_callbacks:
        path = getattr(callback, "dirpath", None)
        if path and before and after and str(path).startswith(str(before)):
            callback.dirpath = str(after) + str(path)[len(str(before)) :]
