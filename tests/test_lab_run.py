"""A run of real processes whose links go through the relays."""

from __future__ import annotations

import pytest
from cluster_fixtures import MakeCluster

from lightning_chaos.monitor.runlog import LogTail
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.director import Director
from lightning_chaos.testing.lab.faults import Part, Schedule, at
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.lab.survival import survivable
from lightning_chaos.testing.lab.timings import cost_of


def test_the_demos_faults_at_a_round_trip_of_20_ms(cluster: MakeCluster, relays: Relays) -> None:
    relays.shape(Shape(rate_mbit=100, delay_ms=10))
    run = cluster("--ballast-kb", "1000")
    first = ("n1", "n2", "n3")
    for node in first:
        run.start(node, env={**relays.env_for(node), "CHAOS_MIN_MEMBERS": "3"})
        if node == "n1":
            run.wait_told("start", node)
        else:
            run.wait_told("pull", node)
    run.wait_members(*first)
    run.start("n4", env=relays.env_for("n4"))
    run.wait_members(*first, "n4")
    run.wait_rounds(5)
    run.kill("n1")
    run.wait_members("n2", "n3", "n4")
    run.wait_rounds(5)
    run.leave("n2")
    run.wait_members("n3", "n4")
    run.wait_rounds(5)
    assert min(relays.carried_bytes()[n, "n4"] for n in first) > 100_000
    run.finish("n3", "n4")


def test_a_script_of_faults_is_carried_out_and_written_down(
    cluster: MakeCluster, relays: Relays
) -> None:
    nodes = ("n1", "n2", "n3")
    relays.shape(Shape(rate_mbit=100, delay_ms=2))
    script = Schedule.of(
        at(round=5).stop("n3"),
        at(round=15).cont("n3"),
        at(round=40).cut("n2", "n3"),
        at(round=45).heal("n2", "n3"),
        at(round=50).throttle("n1", "n2", Shape(rate_mbit=20, delay_ms=5)),
        at(round=55).kill("n2", Part.PEER),
        at(round=60).leave("n2"),
    )
    assert survivable(script, nodes).survives
    run = cluster(CHAOS_TIMEOUT="0.5", CHAOS_MIN_MEMBERS="3")
    with Director(script, run, relays) as director:
        for node in nodes:
            director.start(node)
            run.wait_told("start", node)
        run.wait_members(*nodes)
        director.run(timeout_s=40)
        assert director.done
    run.wait_members("n1", "n3")
    run.finish("n1", "n3")

    truth = [e for e in LogTail(run.directory).poll() if e.event == "fault"]
    assert [e["do"] for e in truth] == [fault.plain()["do"] for fault in script.faults]
    stop, cont, cut = truth[:3]
    cost = cost_of(stop, run.events, until=cut.t, cure=cont)
    assert cost.detect_s is not None
    assert cost.view_s is not None
    assert cost.resume_s is not None
    assert 0 < cost.detect_s < cost.view_s < cont.t - stop.t
    assert cost.back_s is not None


def test_a_script_whose_time_never_comes_ends_with_what_is_left_of_it(
    cluster: MakeCluster, relays: Relays
) -> None:
    run = cluster()
    with Director(Schedule.of(at(round=10**6).heal()), run, relays) as director:
        director.start("n1")
        with pytest.raises(TimeoutError, match=r"1 faults are left; the next is .*heal"):
            director.run(timeout_s=1.0)
        run.wait_told("fits")
        run.kill("n1")
        with pytest.raises(TimeoutError, match="every node has ended"):
            director.run(timeout_s=20.0)
