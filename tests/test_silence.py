"""One node falls silent, in whatever way: the others go on without it, and it comes back.

A host that stops as a whole is in ``test_faults``.  Some fifteen seconds: the ways follow each
other in one run, and each time the node joins again.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster_fixtures import Cluster, MakeCluster

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays

OTHERS = ("n1", "n2", "n3")
MUTE = "n4"


def left_out(run: Cluster, since: int) -> LogEvent:
    """Wait until the others work without it; returns the view that left it out.

    Views before that one may still count on links that were healed after it had come back.
    """

    def without(event: LogEvent) -> bool:
        newer = event.node == "n1" and event.event == "view" and event["epoch"] > since
        return newer and MUTE not in event["members"]

    view = run.wait_told_that(without, f"a view without {MUTE}")
    run.wait_members(*OTHERS)
    assert set(view["members"]) == set(OTHERS)
    return view


def back(run: Cluster) -> int:
    """Wait until it trains with the others again; returns the epoch."""
    run.wait_members(*OTHERS, MUTE)
    return int(run.told("view", "n1")[-1]["epoch"])


def test_a_node_that_falls_silent_is_left_out_and_comes_back(
    cluster: MakeCluster, relays: Relays
) -> None:
    run = cluster(CHAOS_TIMEOUT="0.5")
    relays.shape(Shape(rate_mbit=200, delay_ms=1))
    for node in (*OTHERS, MUTE):
        run.start(node, env={**relays.env_for(node), "CHAOS_MIN_MEMBERS": "4"})
        run.wait_told("start" if node == "n1" else "pull", node)
    epoch = back(run)

    run.suspend(MUTE, worker=False)  # its peer is stopped, its worker is not
    assert "silent for more than 0.5 s" in left_out(run, epoch)["reason"]
    run.resume(MUTE)
    epoch = back(run)

    relays.cut(MUTE, "*")  # a black hole, both ways
    assert "silent for more than 0.5 s" in left_out(run, epoch)["reason"]
    run.wait_for(
        lambda _: waits(run, "1 of 4 members reachable; waiting for quorum"), 20.0, "its reason"
    )
    relays.heal()
    epoch = back(run)

    for other in OTHERS:  # one way: it hears them, nobody hears it
        relays.cut_one_way(MUTE, other)
    assert "silent for more than 0.5 s" in left_out(run, epoch)["reason"]
    relays.heal()
    epoch = back(run)

    for other in OTHERS:  # the other way: all hear it, it hears nobody
        relays.cut_one_way(other, MUTE)
    left_out(run, epoch)
    relays.heal()
    back(run)
    run.finish(*OTHERS, MUTE)


def waits(run: Cluster, reason: str) -> bool:
    """It has said so since the others went on."""
    said: Sequence[LogEvent] = run.told("waiting", MUTE)
    return any(e["reason"].startswith(reason) for e in said)
