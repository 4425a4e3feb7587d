"""What the terminal shows during a storm: how it stands, and what happened last."""

from __future__ import annotations

import math
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lightning_chaos.demo.board import Board, NodeRow
from lightning_chaos.monitor.runlog import LogEvent

_LINE_EVERY_S = 10.0


class Screen:
    """A live picture on a terminal; elsewhere the story, line by line.  A context manager.

    Args:
        console: where to.
        board: folds the run's events.
    """

    def __init__(self, console: Console, board: Board) -> None:
        self._console = console
        self._board = board
        self._status = ""
        self._told_at = -math.inf
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(self._board.render(), console=self._console, refresh_per_second=4)
            self._live.start()
        else:
            self._print(self._board.title)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def take(self, event: LogEvent) -> None:
        """An event of the run; rounds are counted, not told one by one."""
        line = self._board.apply(event)
        if line is not None and event.event != "round":
            self._print(line)

    def tell(self, t: float, text: str) -> None:
        """Something that the driver did."""
        self._print(self._board.tell(t, text))

    def ended(self, node: str, code: int) -> None:
        """A worker process ended."""
        self._board.rows.setdefault(node, NodeRow()).state = f"ended ({code})"

    def show(self, now: float, status: str) -> None:
        """How it stands."""
        if self._live is not None:
            self._live.update(Group(Text(status, style="bold cyan"), self._board.render()))
        elif now - self._told_at >= _LINE_EVERY_S:
            self._told_at = now
            self._print(f"{now - self._board.started:6.1f} s  {status}")

    def _print(self, line: str) -> None:
        if self._live is None:
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)
