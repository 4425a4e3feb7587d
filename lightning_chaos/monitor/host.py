"""How this machine is doing: processors, memory, network cards."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psutil

from lightning_chaos.protocol.values import Host


class HostMeter:
    """Looks at this machine; what flows is counted from one look to the next.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        psutil.cpu_percent()  # starts its count
        self._before = (clock(), *_traffic())

    def look(self) -> Host:
        """The machine now, as far as the system tells."""
        then, sent_before, received_before = self._before
        now, sent, received = self._before = (self._clock(), *_traffic())
        seconds = max(now - then, 1e-3)
        memory = psutil.virtual_memory()
        return Host(
            cpus=psutil.cpu_count() or 0,
            cpu_percent=round(psutil.cpu_percent()),
            memory_bytes=memory.total,
            memory_used_bytes=memory.total - memory.available,
            sent_bytes_per_s=max(0, round((sent - sent_before) / seconds)),
            received_bytes_per_s=max(0, round((received - received_before) / seconds)),
            nic_mbit=_nominal_mbit(),
        )


def _traffic() -> tuple[int, int]:
    """Bytes sent and received since boot, but on loopback; a card that goes takes its along."""
    cards = psutil.net_io_counters(pernic=True)
    counted = [c for name, c in cards.items() if not name.startswith("lo")]
    return sum(c.bytes_sent for c in counted), sum(c.bytes_recv for c in counted)


def _nominal_mbit() -> int:
    with contextlib.suppress(OSError):
        cards = psutil.net_if_stats()
        return max((c.speed for c in cards.values() if c.isup), default=0)
    return 0
