"""A run of real processes whose links go through the relays."""

from __future__ import annotations

from cluster_fixtures import MakeCluster
from lab_sockets import relays

from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays

__all__ = ["relays"]


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
