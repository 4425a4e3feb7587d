"""A Trainer's whole state as a tree, and back (design §7, docs/state.md).

The *shared* part is what a faithful resume needs and what members hold in common: parameters,
buffers, optimizers, schedulers, precision, loop counters, ledger.  The *local* part is one
member's own: callbacks' states, the metrics they look at, and where its loggers write; a newcomer
starts with a copy of the oldest member's.  Both are taken between two rounds, where every
progress counter that is ready is also completed.
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
    shared = {
        "checkpoint": checkpoint,
        "unsaved_buffers": _unsaved_buffers(trainer),
        "pace": _pace(trainer),
    }
    local = {
        "callbacks": callbacks,
        # not trainer.callback_metrics, which may want to exchange values with the other members
        "metrics": dict(trainer._logger_connector._callback_metrics),
        "loggers": _logger_versions(trainer),
        "checkpoints": [_saved(callback) for callback in trainer.checkpoint_callbacks],
    }
    return shared, local


def give(trainer: Any, shared: dict[str, Any], local: dict[str, Any]) -> None:
    """Make this Trainer what the other one was; only between two rounds, while it fits.

    Raises:
        Exception: whatever a ``load_state_dict`` of model, optimizer or callback raises.
    """
    _adopt_paths(trainer, local)
    local = _with_own_folders(trainer, local)
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
    _keep_pace(trainer, shared["pace"])
    trainer._logger_connector._callback_metrics.update(local["metrics"])
    for callback, saved in zip(trainer.checkpoint_callbacks, local["checkpoints"], strict=False):
        vars(callback).update(saved)
    buffers = dict(trainer.lightning_module.named_buffers())
    with torch.no_grad():
        for name, value in shared["unsaved_buffers"].items():
            buffers[name].copy_(value)


def _pace(trainer: Any) -> dict[str, Any]:
    """What decides which hooks run when, and is in no checkpoint."""
    fit = trainer.fit_loop
    return {
        "accumulate_grad_batches": trainer.accumulate_grad_batches,  # a scheduler may change it
        "should_stop": trainer.should_stop,
        "reloaded": [_reloaded(fit), _reloaded(fit.epoch_loop.val_loop)],
    }


def _saved(callback: Any) -> dict[str, Any]:
    """What keeps a ModelCheckpoint from saving the same step twice, and is not in its state."""
    names = (
        "_last_global_step_saved",
        "_last_checkpoint_saved",
        "_defer_save_until_validation",
    )
    return {name: vars(callback)[name] for name in names if name in vars(callback)}


def _reloaded(loop: Any) -> float:
    """Epoch in which the loop last asked for its loaders."""
    names = ("_last_train_dl_reload_epoch", "_last_val_dl_reload_epoch")
    return float(next(getattr(loop, name) for name in names if hasattr(loop, name)))


def _keep_pace(trainer: Any, pace: dict[str, Any]) -> None:
    trainer.accumulate_grad_batches = pace["accumulate_grad_batches"]
    trainer.should_stop = pace["should_stop"]
    train, validation = pace["reloaded"]
    trainer.fit_loop._last_train_dl_reload_epoch = train
    trainer.fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch = validation


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


def _with_own_folders(trainer: Any, local: dict[str, Any]) -> dict[str, Any]:
    """What ModelCheckpoints remember of files, as if they were in this node's own folders.

    Else members with disks of their own would decide differently what to save and to delete.
    """
    callbacks, saved = dict(local["callbacks"]), list(local["checkpoints"])
    for i, callback in enumerate(trainer.checkpoint_callbacks):
        state, ours = callbacks.get(callback.state_key, {}), getattr(callback, "dirpath", None)
        theirs = state.get("dirpath")
        if ours and theirs and str(theirs) != str(ours):
            callbacks[callback.state_key] = _moved(state, str(theirs), str(ours))
            if i < len(saved):
                saved[i] = _moved(saved[i], str(theirs), str(ours))
    return {**local, "callbacks": callbacks, "checkpoints": saved}


def _moved(value: Any, before: str, after: str) -> Any:
    """That value with every path below one folder moved to another."""
    match value:
        case str() if value == before or value.startswith(before.rstrip("/") + "/"):
            return after + value[len(before) :]
        case dict():
            return {_moved(k, before, after): _moved(v, before, after) for k, v in value.items()}
        case _:
            return value


def _adopt_paths(trainer: Any, local: dict[str, Any]) -> None:
    """Loggers and checkpoints go on where the run writes, not in a version of their own."""
    before = trainer.log_dir
    for logger, theirs in zip(trainer.loggers, local["loggers"], strict=False):
        if theirs is not None and getattr(logger, "_version", None) is not None:
            logger._version = theirs
    after = trainer.log_dir
    for callback in trainer.checkpoint_callbacks:
        path = getattr(callback, "dirpath", None)
        if path and before and after and str(path).startswith(str(before)):
            callback.dirpath = str(after) + str(path)[len(str(before)) :]
