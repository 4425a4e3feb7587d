"""Nodes that come at the same time pass on to each other what they pull; one of them dies of it.

Fifteen seconds: five nodes, and that a newcomer has to wait is told after five seconds.
"""

from __future__ import annotations

from cluster_fixtures import MakeCluster

from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays

SLOW_MBIT, MBIT = 2, 40
DYING_MBIT = 10
"""Of the one that dies to its fellows: it gives less than they, however long it lives."""
NEW = ("n3", "n4", "n5")


def test_newcomers_take_from_each_other_and_do_without_the_one_that_dies(
    cluster: MakeCluster, relays: Relays
) -> None:
    relays.shape(Shape(rate_mbit=SLOW_MBIT, delay_ms=5), "n1", "n2")
    for node in NEW:
        relays.shape(Shape(rate_mbit=MBIT, delay_ms=5), "n1", node)
        relays.shape(Shape(rate_mbit=MBIT, delay_ms=5), "n2", node)
    for node in NEW[:-1]:
        relays.shape(Shape(rate_mbit=DYING_MBIT, delay_ms=5), NEW[-1], node)
    run = cluster("--ballast-kb", "12000")
    run.start("n1", env=relays.env_for("n1"))
    run.wait_told("start", "n1")
    run.start("n2", env=relays.env_for("n2"))
    run.wait_told("pulling", "n2")
    for node in NEW:
        run.start(node, env=relays.env_for(node))
    for node in NEW:
        run.wait_told_that(
            lambda e, n=node: (  # type: ignore[misc]
                (e.node, e.event) == (n, "waiting") and e["reason"].endswith("after n2")
            ),
            f"{node} to say that it waits for n2",
        )
    relays.shape(Shape(delay_ms=5), "n1", "n2")  # n2 has the state soon, and then all come at once
    run.wait_told_that(
        lambda e: e.event == "pulling" and e.node == "n3" and e["per_donor"].get("n5", 0) > 0,
        "n5 to pass something on",
    )
    run.kill("n5")
    run.wait_members("n1", "n2", "n3", "n4")
    for node, fellow in (("n3", "n4"), ("n4", "n3")):
        (pull,) = run.told("pull", node)
        given = {share["node"]: share["bytes"] for share in pull["per_donor"]}
        # On a quiet machine a third and more; on a busy one less comes over any link.
        assert given[fellow] > 0.05 * pull["bytes"]
        assert given["n5"] < given[fellow]
    run.finish("n1", "n2", "n3", "n4")
