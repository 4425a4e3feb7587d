"""Every link is lost, so nobody has a quorum and all freeze: once links work, the same go on."""

from __future__ import annotations

from itertools import combinations

import pytest
from cluster_fixtures import MakeCluster

from lightning_chaos.testing.lab.conditions import Cut, Shape
from lightning_chaos.testing.lab.relays import Relays

NODES = ("n1", "n2", "n3")


@pytest.mark.parametrize("how", [Cut.RESET, Cut.SILENT])
def test_all_lose_each_other_and_go_on_as_the_same_members(
    cluster: MakeCluster, relays: Relays, how: Cut
) -> None:
    relays.shape(Shape(rate_mbit=200, delay_ms=1))
    run = cluster()
    for node in NODES:
        run.start(node, env={**relays.env_for(node), "CHAOS_MIN_MEMBERS": str(len(NODES))})
        run.wait_told("start" if node == NODES[0] else "pull", node)
    run.wait_members(*NODES)
    begun = {node: len(run.told("start", node)) for node in NODES}
    with relays.at_once():  # else two that still reach each other are a quorum
        for a, b in combinations(NODES, 2):
            relays.cut(a, b, how)
    for node in NODES:
        run.wait_told_that(
            lambda e, node=node: (  # type: ignore[misc]
                # Not the founder's "1 of 3 members are here", of when it waited for the others.
                e.node == node and "1 of 3 members reachable" in str(e.fields.get("reason"))
            ),
            f"{node} to be alone",
        )
    relays.heal()
    run.wait_rounds(3)
    run.wait_members(*NODES)
    assert {node: len(run.told("start", node)) for node in NODES} == begun
    run.finish(*NODES)
