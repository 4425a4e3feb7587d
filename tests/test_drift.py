"""Members that come to differ are found, told and corrected (design §6).

One of them has to start cold, with an import of torch: that alone takes more than five seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from cluster_fixtures import BOUND_S, SCRIPTS, Cluster, MakeCluster

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.lab.wan.enter import Host
from lightning_chaos.testing.launch import ColdStart, ForkServer, Launcher, Running

SCRIPT = SCRIPTS / "drifting.py"
SEGMENTS = 4
"""Of the script's state: 8 MiB of ballast, what is before and behind it, and what is no tensor."""
_KIND = torch.backends.cpu.get_cpu_capability()


class ColdWhereToldSo:
    """Forks, but for nodes with another CPU capability: torch reads that when it is loaded."""

    def __init__(self, fork_server: Launcher) -> None:
        self._warm, self._cold = fork_server, ColdStart()

    def launch(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: Path,
        host: Host | None = None,
    ) -> Running:
        """See :class:`Launcher`."""
        by = self._cold if "ATEN_CPU_CAPABILITY" in env else self._warm
        return by.launch(command, env=env, cwd=cwd, output=output, host=host)


def _wait_corrected(run: Cluster, node: str, times: int = 1) -> list[LogEvent]:
    def corrected(_: Sequence[LogEvent]) -> list[LogEvent] | None:
        found = [e for e in run.told("corrected", node) if node in e["members"]]
        return found if len(found) >= times else None

    return run.wait_for(corrected, run.bound_s, f"{node} to be corrected")  # type: ignore[return-value]


@pytest.mark.timeout(120)
@pytest.mark.skipif(_KIND == "DEFAULT", reason="this CPU has no other capability")
def test_a_member_of_another_cpu_capability_is_corrected_each_time(
    cluster: MakeCluster, fork_server: ForkServer
) -> None:
    launcher = ColdWhereToldSo(fork_server)
    run = cluster(script=SCRIPT, launcher=launcher, CHAOS_VERIFY_EVERY="2", CHAOS_MIN_MEMBERS="3")
    run.bound_s = 2 * BOUND_S
    run.start("a")
    run.wait_told("start", "a")
    run.start("b", env={"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"})
    run.start("c")
    run.wait_members("a", "b", "c")
    corrections = _wait_corrected(run, "b", times=3)
    run.finish("a", "b", "c")
    assert run.told("unlike", "b")[0]["differences"] == [f"cpu {_KIND} there, DEFAULT here"]
    assert {tuple(e["members"]) for e in run.told("drift")} == {("b",)}
    for event in corrections:
        assert event["per_donor"].keys() == {"a", "c"}
        assert 0 < event["bytes"] < event["kept_bytes"]  # the ballast did not travel
    assert "drift: b differs in segment" in run.tail("a", 1000)


def test_a_flipped_bit_is_found_when_its_segment_has_its_turn_and_corrected(
    cluster: MakeCluster,
) -> None:
    run = cluster("--flip", "a=20", script=SCRIPT, CHAOS_VERIFY_EVERY="3")
    run.up("a", "b", "c")
    (corrected,) = _wait_corrected(run, "a")
    run.wait_rounds(3 * SEGMENTS)
    run.finish("a", "b", "c")
    found = run.told("drift", "b")
    assert [e["members"] for e in found] == [["a"]]
    assert 20 <= found[0]["round"] <= 20 + 3 * SEGMENTS
    assert found[0]["equal_at"] < 20
    assert corrected["round"] == found[0]["round"] + 1
