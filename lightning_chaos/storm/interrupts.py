"""Ctrl-C and SIGTERM during a storm: the first ends it politely, the second at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Notes the first signal; a context manager, for the main thread."""

    def __init__(self) -> None:
        self.got: signal.Signals | None = None
        """The first signal that came."""
        self._before: dict[signal.Signals, Any] = {}

    @property
    def name(self) -> str:
        """What ended it, for people."""
        return "Ctrl-C" if self.got is signal.SIGINT else "SIGTERM"

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.got is not None:
            raise SystemExit(128 + number)  # the nodes are ended on the way out
        self.got = signal.Signals(number)
