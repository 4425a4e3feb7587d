"""Ctrl-C, SIGTERM and SIGUSR1 become a polite leave; the second one ends at once."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from typing_extensions import override

log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class LeftRun(SystemExit):
    """This node has left the run as it was asked to; the script ends with exit code 0."""

    @override
    def __str__(self) -> str:
        return "as it was asked to"


class PoliteSignals:
    """Handlers for the time of a fit.

    Args:
        leave: asks to be planned out; called in a signal handler.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._before: dict[int, Any] = {}
        self._got: int | None = None
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # SIGUSR1 may have another meaning for somebody, such as Lightning under SLURM.
                if number != signal.SIGUSR1 or signal.getsignal(number) == signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._got is not None:
            self.close()
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + number)
        self._got = number
        log.warning("%s: leaving politely, once more to end at once", signal.Signals(number).name)
        self._leave()

    def ending(self) -> BaseException:
        """What ends the fit once this node has left."""
        return KeyboardInterrupt() if self._got == signal.SIGINT else LeftRun(0)

    def close(self) -> None:
        """Put the former handlers back."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle and handler is not None:
                signal.signal(number, handler)
        self._before.clear()
