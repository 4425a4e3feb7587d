"""Gradients leave while backward goes on, at nodes that stand still in the middle of it."""

from __future__ import annotations

import pytest
from cluster_fixtures import SCRIPTS, Cluster, MakeCluster, cluster

__all__ = ["cluster"]

SCRIPT = SCRIPTS / "backward.py"


def gates(run: Cluster, *nodes: str) -> None:
    """Each of these got the others' first buckets before its own last gradient was made."""
    for node in nodes:
        gate = run.wait_told("gate", node)
        assert gate["arrived"], f"{node} got nothing of the others during backward"
        assert gate["before_last"]


@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_the_first_bucket_is_there_before_the_last_gradient_is_ready(
    cluster: MakeCluster, accumulate: str
) -> None:
    run = cluster("--accumulate", accumulate, script=SCRIPT, CHAOS_MIN_MEMBERS="2")
    run.start("a", "b")
    gates(run, "a", "b")
    run.wait_rounds(6)
    run.finish("a", "b")


def test_a_member_killed_between_its_first_bucket_and_its_last_leaves_no_trace(
    cluster: MakeCluster,
) -> None:
    run = cluster("--pause", "a", script=SCRIPT)
    run.up("a", "b", "c")
    gates(run, "a", "b", "c")
    run.kill("a")  # the others are frozen in the middle of backward
    run.wait_members("b", "c")
    redone = [e for e in run.told("round") if e["round"] == 3]
    assert {len(e["members"]) for e in redone} == {2}
    run.wait_rounds(3)
    run.finish("b", "c")


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("error", "ValueError: a mistake in the user's code"),
        ("collective", "ChaosError: all_gather was asked for during backward"),
    ],
)
def test_an_error_in_the_middle_of_backward_costs_the_others_nothing(
    cluster: MakeCluster, mistake: str, told: str
) -> None:
    run = cluster("--fail", "b", "--mistake", mistake, script=SCRIPT)
    run.up("a", "b", "c")
    gates(run, "a", "b", "c")
    (run.log_dir / "fail").touch()
    assert run.wait_exit("b", 20.0) == 1
    assert told in run.tail("b", 40)
    run.wait_members("a", "c")
    run.wait_rounds(3)
    run.finish("a", "c")
