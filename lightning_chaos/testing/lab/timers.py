"""Timers that are late by microseconds, for who stands in for a network."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import selectors
import sys
from pathlib import Path

from typing_extensions import override

_SLACK = Path("/proc/self/timerslack_ns")
_SLACK_NS = 1000
_PRIORITY = 1


def exact_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are as exact as the system's (asyncio rounds to milliseconds).

    The process goes before all others from now on, if it may (root), for it must be in time and
    needs little time.  Call it before many files are open.
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    if sys.platform != "linux":
        return asyncio.new_event_loop()
    with contextlib.suppress(OSError):  # by default the kernel takes 50 microseconds more
        _SLACK.write_text(str(_SLACK_NS))
    return asyncio.SelectorEventLoop(_ExactSelector())


if sys.platform == "linux":

    class _ExactSelector(selectors.EpollSelector):
        @override
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                select.select([self], [], [], timeout)  # its own file is ready when any of its is
                timeout = 0
            return super().select(timeout)
