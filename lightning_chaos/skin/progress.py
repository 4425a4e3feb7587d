"""The pull as a bar per donor, on a terminal and in the run log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from lightning_chaos.replication.values import Progress
from lightning_chaos.worker.node import Node

_EVERY_S = 0.1


class PullProgress:
    """Shows a pull while it runs.

    Args:
        node: whose run log is told.
        on_terminal: draw bars if standard error is a terminal.
    """

    def __init__(self, node: Node, on_terminal: bool) -> None:
        self.last: Progress | None = None
        """How far the pull got."""
        self._node = node
        self._told_at = float("-inf")
        self._bars: Bars | None = None
        self._tasks: dict[str, Any] = {}
        if on_terminal and sys.stderr.isatty():
            self._bars = Bars(
                "pull from {task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn()
            )

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, progress: Progress) -> None:
        """Told after every shard, on the I/O thread."""
        self.last = progress
        now = time.monotonic()
        if now - self._told_at < _EVERY_S and progress.bytes < progress.total:
            return
        self._told_at = now
        self._node.log(
            "pulling", bytes=progress.bytes, total=progress.total, per_donor=progress.per_donor
        )
        if self._bars is not None:
            for name, size in progress.per_donor.items():
                if name not in self._tasks:
                    self._tasks[name] = self._bars.add_task(name, total=progress.total)
                self._bars.update(self._tasks[name], completed=size)
