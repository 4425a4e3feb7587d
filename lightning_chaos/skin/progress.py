"""The pull as a bar per donor, on a terminal and in the run log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
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
                "pull from {task.description}",
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                console=Console(stderr=True),
                auto_refresh=False,
                redirect_stdout=False,
            )

    def __enter__(self) -> Self:
        self._draw(Bars.start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._draw(Bars.stop)

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
        self._draw(lambda bars: self._move(bars, progress))

    def _move(self, bars: Bars, progress: Progress) -> None:
        for name, size in progress.per_donor.items():
            if name not in self._tasks:
                self._tasks[name] = bars.add_task(name, total=progress.total)
            bars.update(self._tasks[name], completed=size)
        bars.refresh()

    def _draw(self, draw: Callable[[Bars], object]) -> None:
        """Do that with the bars, if there are any; a terminal that is gone costs no donor."""
        if self._bars is None:
            return
        try:
            draw(self._bars)
        except OSError:
            bars, self._bars = self._bars, None
            with contextlib.suppress(OSError):
                bars.stop()
