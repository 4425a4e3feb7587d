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

STATE_BYTES = 1000 << 10


def test_the_demos_faults_at_a_round_trip_of_20_ms(cluster: MakeCluster, relays: Relays) -> None:
    relays.shape(Shape(rate_mbit=100, delay_ms=10))
    run = cluster("--ballast-kb", str(STATE_BYTES >> 10))
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
    assert sum(relays.carried_bytes()[n, "n4"] for n in first) > STATE_BYTES
    run.finish("n3", "n4")


def test_a_script_of_faults_is_carried_out_and_written_down(
    cluster: MakeCluster, relays: Relays
) -> None:
    nodes = ("n1", "n2", "n3")
    relays.shape(Shape(rate_mbit=100, delay_ms=2))
    first = Schedule.of(at(round=5).stop("n3"), at(round=30).cont("n3"))
    run = cluster("--holds", CHAOS_TIMEOUT="0.5", CHAOS_MIN_MEMBERS="3")
    hold = run.log_dir / "hold.n1"
    hold.write_text("10")  # until n3 is stopped: nobody knows how far the others come meanwhile
    with Director(first, run, relays) as director:
        for node in nodes:
            director.start(node)
            run.wait_told("start", node)
        run.wait_told("holds", "n1")
        assert [fault.plain()["do"] for fault in director.step()] == ["stop"]
        hold.unlink()
        director.run(timeout_s=40)
        assert director.done
    run.wait_members(*nodes)  # nor how long it takes to come back

    now = run.round
    then = Schedule.of(
        at(round=now + 5).cut("n2", "n3"),
        at(round=now + 10).heal("n2", "n3"),
        at(round=now + 15).throttle("n1", "n2", Shape(rate_mbit=20, delay_ms=5)),
        at(round=now + 20).kill("n2", Part.PEER),
        at(round=now + 25).leave("n2"),
    )
    assert survivable(Schedule.of(*first.faults, *then.faults), nodes).survives
    with Director(then, run, relays) as director:
        director.run(timeout_s=40)
    run.wait_members("n1", "n3")
    run.finish("n1", "n3")

    truth = [e for e in LogTail(run.directory).poll() if e.event == "fault"]
    done = [fault.plain()["do"] for fault in (*first.faults, *then.faults)]
    assert [e["do"] for e in truth] == done
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
