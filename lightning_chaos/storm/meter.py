"""What the storm runs on, and how busy that is."""

from __future__ import annotations

import os
import platform
import statistics
from importlib.metadata import version

import psutil

from lightning_chaos.storm.facts import Machine

_EVERY_S = 1.0
_PACKAGES = ("lightning-chaos", "lightning", "torch")


class Meter:
    """Samples the load of all processors once a second."""

    def __init__(self) -> None:
        self._next = 0.0
        self._loads: list[float] = []

    def look(self, now: float) -> None:
        """To be called often, with the time in seconds."""
        if now >= self._next:
            self._next = now + _EVERY_S
            self._loads.append(psutil.cpu_percent() / 100)

    def machine(self) -> Machine:
        """What it has seen so far."""
        loads = self._loads[1:] or [0.0]  # the first has nothing to compare with
        return Machine(
            cpus=os.cpu_count() or 1,
            load_median=statistics.median(loads),
            load_max=max(loads),
            versions={
                **{name: version(name) for name in _PACKAGES},
                "Python": platform.python_version(),
                "machine": f"{platform.system()} {platform.machine()}",
            },
        )
