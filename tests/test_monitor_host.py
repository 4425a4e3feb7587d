"""What is told of a machine."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from lightning_chaos.monitor import host
from lightning_chaos.monitor.host import HostMeter


def test_it_tells_of_this_machine() -> None:
    seen = HostMeter().look()
    assert seen.cpus == psutil.cpu_count()
    assert 0 <= seen.cpu_percent <= 100
    assert 0 < seen.memory_used_bytes < seen.memory_bytes
    assert min(seen.sent_bytes_per_s, seen.received_bytes_per_s, seen.nic_mbit) >= 0


def test_what_flows_is_counted_from_one_look_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now, counters = [10.0], [(1_000, 50)]
    monkeypatch.setattr(host, "_traffic", lambda: counters[0])
    meter = HostMeter(lambda: now[0])
    now[0], counters[0] = 12.0, (5_000, 250)
    seen = meter.look()
    assert (seen.sent_bytes_per_s, seen.received_bytes_per_s) == (2_000, 100)
    now[0], counters[0] = 13.0, (0, 0)  # a card is gone
    seen = meter.look()
    assert (seen.sent_bytes_per_s, seen.received_bytes_per_s) == (0, 0)


def test_what_the_system_does_not_tell_is_nothing_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))  # as where /proc is hidden
    seen = HostMeter().look()
    assert (seen.cpu_percent, seen.memory_bytes, seen.memory_used_bytes) == (0, 0, 0)
    assert (seen.sent_bytes_per_s, seen.received_bytes_per_s) == (0, 0)
