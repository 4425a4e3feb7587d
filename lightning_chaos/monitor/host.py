"""How this machine is doing: processors, memory, network cards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from lightning_chaos.protocol.values import Host

T = TypeVar("T")


class HostMeter:
    """Looks at this machine; what flows is counted from one look to the next.

    What the system does not tell (a container may hide /proc) is 0.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        _told(psutil.cpu_percent, 0.0)  # starts its count
        self._before = (clock(), *_told(_traffic, (0, 0)))

    def look(self) -> Host:
        """The machine now."""
        then, sent_before, received_before = self._before
        now, sent, received = self._before = (self._clock(), *_told(_traffic, (0, 0)))
        seconds = max(now - then, 1e-3)
        memory_bytes, available_bytes = _told(_memory, (0, 0))
        return Host(
            cpus=_told(psutil.cpu_count, None) or 0,
            cpu_percent=round(_told(psutil.cpu_percent, 0.0)),
            memory_bytes=memory_bytes,
            memory_used_bytes=memory_bytes - available_bytes,
            sent_bytes_per_s=max(0, round((sent - sent_before) / seconds)),
            received_bytes_per_s=max(0, round((received - received_before) / seconds)),
            nic_mbit=_told(_nominal_mbit, 0),
        )


def _told(ask: Callable[[], T], otherwise: T) -> T:
    """What the system tells, or what stands for it: no run ends because a gauge cannot be read."""
    try:
        return ask()
    except (OSError, RuntimeError, psutil.Error):
        return otherwise


def _memory() -> tuple[int, int]:
    """Bytes in all, and available."""
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def _traffic() -> tuple[int, int]:
    """Bytes sent and received since boot, but on loopback; a card that goes takes its along."""
    cards = psutil.net_io_counters(pernic=True)
    counted = [c for name, c in cards.items() if not name.startswith("lo")]
    return sum(c.bytes_sent for c in counted), sum(c.bytes_recv for c in counted)


def _nominal_mbit() -> int:
    cards = psutil.net_if_stats()
    return max((c.speed for c in cards.values() if c.isup), default=0)
