"""Workers that hang while their peers live, and some that only look like that.

Half a minute: nothing may happen before a worker has hung for a while, and clusters start.
"""

from __future__ import annotations

import time

import pytest
from cluster_fixtures import BOUND_S, MakeCluster


@pytest.mark.parametrize("how", ["one thread", "all threads"])
def test_a_worker_that_hangs_in_a_step_loses_its_seat_and_the_others_go_on(
    cluster: MakeCluster, how: str
) -> None:
    seize = ["--seize"] if how == "all threads" else []
    run = cluster("--pause", "b=last round", *seize, CHAOS_WORKER_TIMEOUT="1")
    run.up("a", "b", "c")
    hung = run.wait_told("pauses", "b")
    run.wait_members("a", "c")
    found = run.told("view", "a")[-1]
    assert "gave nothing to operation" in found["reason"]
    began = min(e.t for e in run.told("last round") if e["step"] == hung["step"])
    assert found.t - began >= 0.9  # nobody had waited for it before; not before the timeout
    run.wait_rounds(5)
    assert not run.told("end", "b"), "it hangs, it did not die"
    run.kill("b")
    run.finish("a", "c")


def test_a_newcomer_that_hangs_with_the_state_in_its_hands_is_left_out(
    cluster: MakeCluster,
) -> None:
    run = cluster("--pause", "c=taking over")
    run.up("a", "b")
    run.start("c", env={"CHAOS_WORKER_TIMEOUT": "1"})
    run.wait_told("pauses", "c")
    run.wait_told_that(
        lambda e: e.event == "view" and "c stopped learning" in e["reason"], "c to be left out"
    )
    run.wait_told_that(lambda e: e.event == "hold" and e["serving"] == ["c"], "members to go on")
    run.wait_rounds(5)
    assert not run.told("end", "c"), "it hangs, it did not die"
    run.kill("c")
    run.finish("a", "b")


def test_a_first_step_may_take_longer_than_a_worker_may_hang(cluster: MakeCluster) -> None:
    run = cluster("--compiles", "b", CHAOS_WORKER_TIMEOUT="1")
    run.up("a", "b", "c")
    run.wait_rounds(5)
    seats = [e["members"] for e in run.told("view", "a")]
    assert seats == sorted(seats, key=len), "nobody has lost one"
    run.finish("a", "b", "c")


def test_a_machine_that_sleeps_costs_none_of_its_nodes_the_seat(cluster: MakeCluster) -> None:
    run = cluster("--holds", CHAOS_WORKER_TIMEOUT="2")
    run.up("a", "b", "c")
    run.hold("c")
    run.wait_told("holds", "c")
    seats = len(run.told("view"))
    for node in "abc":
        run.suspend(node)
    run.let_go("c")
    time.sleep(3.0)  # nothing may come of it, so there is nothing to wait for
    for node in "abc":
        run.resume(node)
    run.wait_rounds(10)
    views = run.told("view")
    assert len(views) == seats, views[seats:]
    run.finish("a", "b", "c")


@pytest.mark.timeout(120)
def test_who_waits_for_a_hung_one_is_not_taken_for_hung(cluster: MakeCluster) -> None:
    run = cluster("--pause", "c=validating", "--validate", CHAOS_WORKER_TIMEOUT="0.5")
    run.bound_s = 4 * BOUND_S  # ten times what work between rounds has taken here
    run.up("a", "b", "c")
    run.wait_told("pauses", "c")
    run.wait_members("a", "b")  # after ten times as long: what is no round has no past
    assert all("c: " in e["reason"] for e in run.told("view", "a") if "gave" in e["reason"])
    run.kill("c")
    run.finish("a", "b")
