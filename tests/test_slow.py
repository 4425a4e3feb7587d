"""A member that is ten times slower than the others is shown, and treated as the policy says.

Some 15 seconds: rounds take as long as a slow member needs until it has been found out.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_fixtures import SCRIPTS, Cluster, MakeCluster, await_text, replayed

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.launch import ForkServer

BATCH = 12
MakePaced = Callable[[str], Cluster]


@pytest.fixture
def paced(cluster: MakeCluster) -> MakePaced:
    """Makes a cluster of that policy, in which nodes can be made slow."""

    def make(policy: str) -> Cluster:
        return cluster(script=SCRIPTS / "paced.py", CHAOS_SLOW=policy)

    return make


def mark(run: Cluster, node: str) -> Path:
    """The file that makes a node slow."""
    return run.log_dir / f"{node}.slow"


def wait_slow(run: Cluster, node: str, slow: bool) -> LogEvent:
    """Wait until the node has told that it is slow, or no longer."""

    def told(event: LogEvent) -> bool:
        return event.event == "slow" and event.node == node and bool(event["slow"]) == slow

    return run.wait_told_that(told, f"{node} to be slow: {slow}")


def taken(event: LogEvent) -> dict[str, int]:
    """Samples that each member had in a round."""
    sizes = (sum(stop - start for start, stop in ranges) for ranges in event["ranges"])
    return dict(zip((uid.rpartition("/")[0] for uid in event["members"]), sizes, strict=True))


def test_a_slow_member_is_kept_and_shown(paced: MakePaced) -> None:
    run = paced("keep")
    run.up("a", "b")
    mark(run, "b").touch()
    assert wait_slow(run, "b", True)["share"] == BATCH
    await_text(run.output("a"), "b is slow")
    status = subprocess.run(
        [sys.executable, "-m", "lightning_chaos.cli", "status"],
        env=run.command_env(),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert "member, slow" in status.stdout
    mark(run, "b").unlink()
    wait_slow(run, "b", False)
    run.finish("a", "b")
    assert run.output("a").read_text().count("b is slow") == 1


@pytest.mark.timeout(150)
def test_a_slow_member_takes_fewer_samples_and_a_replay_arrives_at_the_same_state(
    paced: MakePaced, fork_server: ForkServer
) -> None:
    run = paced("share")
    run.up("a", "b", "c")
    mark(run, "c").touch()
    assert wait_slow(run, "c", True)["share"] < BATCH / 3
    run.start("d")  # it pulls with the state what each has to take
    run.wait_members("a", "b", "c", "d")
    small = run.wait_told_that(
        lambda e: e.event == "round" and len(e["members"]) == 4 and taken(e)["d"] == BATCH,
        "a round of all four",
    )
    assert taken(small)["c"] < BATCH / 3
    run.kill("a")
    run.wait_members("b", "c", "d")
    mark(run, "c").unlink()
    wait_slow(run, "c", False)
    epoch = run.told("round")[-1]["data_epoch"]
    run.wait_told_that(
        lambda e: e.event == "round" and e["data_epoch"] > epoch + 1, "two more ends of an epoch"
    )
    assert BATCH in [taken(e)["c"] for e in run.told("round")[-20:]]
    run.finish("b", "c", "d")  # and every sample has counted once

    code, said = replayed(fork_server, run.log_dir)
    assert code == 0, said
    assert "equal, bit for bit" in said


def test_a_slow_member_stands_by_and_comes_back(paced: MakePaced) -> None:
    run = paced("standby")
    run.up("a", "b", "c", env={"CHAOS_MIN_MEMBERS": "1"})
    mark(run, "b").touch()
    run.wait_told("stand-by", "b")
    run.wait_members("a", "c")
    assert not run.told("freeze")
    mark(run, "b").unlink()
    run.wait_members("a", "c", "b")  # as the youngest
    run.finish("a", "b", "c")
