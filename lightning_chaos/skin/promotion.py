"""Rank zero follows the view: whoever becomes the oldest goes on writing."""

from __future__ import annotations

import csv
import os
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only


def set_rank(rank: int) -> None:
    """What ``rank_zero_only`` functions, loggers and warnings look at.

    All four Lightning namespaces share this one object.
    """
    setattr(rank_zero_only, "rank", rank)  # noqa: B010  (an attribute of a function)


def promote(trainer: Any) -> None:
    """This member has become rank zero in the middle of a fit: let its loggers go on."""
    for logger in trainer.loggers:
        if type(logger).__name__ == "CSVLogger":
            _continue_csv(logger)
    bar = trainer.progress_bar_callback
    if bar is not None and bar.is_disabled and trainer.is_global_zero:
        bar.enable()


def _continue_csv(logger: Any) -> None:
    """Open the run's ``metrics.csv`` for more rows.

    A new writer deletes a file that it finds, so the file stands aside meanwhile.  A line that
    the old rank zero did not finish is dropped.
    """
    path = os.path.join(logger.log_dir, "metrics.csv")
    if logger._experiment is not None or not os.path.exists(path):
        return
    aside = path + ".before"
    os.replace(path, aside)
    try:
        writer = logger.experiment
    finally:
        os.replace(aside, path)
    with open(path, newline="") as file:
        lines = file.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        with open(path, "w", newline="") as file:
            file.writelines(lines)
    writer.metrics_keys = next(csv.reader(lines[:1]), [])
