"""Links between live nodes are lost and come back: nobody whom the others reach loses its seat."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cluster_fixtures import Cluster, MakeCluster

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.lab.conditions import Cut, Shape
from lightning_chaos.testing.lab.relays import Relays


def up(run: Cluster, relays: Relays, *nodes: str) -> None:
    """Start these nodes behind the relays, so that their ages follow the names' order."""
    relays.shape(Shape(rate_mbit=200, delay_ms=1))
    for node in nodes:
        run.start(node, env={**relays.env_for(node), "CHAOS_MIN_MEMBERS": str(len(nodes))})
        run.wait_told("start" if node == nodes[0] else "pull", node)
    run.wait_members(*nodes)
    run.wait_rounds(3)


def wait_without(run: Cluster, *pairs: str) -> None:
    """Wait until all work under a view that lacks just these links, and a round is stable."""
    wanted = sorted(pairs)

    def settled(_: Sequence[LogEvent]) -> bool:
        newest = max(run.told("view"), key=lambda e: int(e["epoch"]))
        users = {e.node for e in run.told("view") if e["epoch"] == newest["epoch"]}
        missing = sorted("-".join(sorted(pair)) for pair in newest["missing"])
        rounds = any(e["epoch"] >= newest["epoch"] for e in run.told("round"))
        return missing == wanted and users >= set(newest["members"]) and rounds

    run.wait_for(settled, run.bound_s, f"a view without {', '.join(wanted) or 'nothing'}")


def never_left_out(run: Cluster, *nodes: str) -> bool:
    """Since all of them were in, every view has had them all."""
    views = sorted(run.told("view"), key=lambda e: int(e["epoch"]))
    first = next(i for i, e in enumerate(views) if set(nodes) <= set(e["members"]))
    return all(set(nodes) <= set(e["members"]) for e in views[first:])


@pytest.mark.parametrize("how", [Cut.RESET, Cut.SILENT])
def test_two_members_lose_their_link_and_both_stay(
    cluster: MakeCluster, relays: Relays, how: Cut
) -> None:
    nodes = ("n1", "n2", "n3", "n4")
    run = cluster()
    up(run, relays, *nodes)
    relays.cut("n2", "n3", how)
    wait_without(run, "n2-n3")
    run.wait_rounds(10)
    relays.heal("n2", "n3")
    wait_without(run)
    run.wait_rounds(5)
    assert never_left_out(run, *nodes)
    run.finish(*nodes)


def test_the_lead_goes_on_through_the_only_one_it_reaches(
    cluster: MakeCluster, relays: Relays
) -> None:
    nodes = ("n1", "n2", "n3")
    run = cluster("--ballast-kb", "1000")
    up(run, relays, *nodes)
    relays.cut("n1", "n3", Cut.RESET)
    wait_without(run, "n1-n3")
    run.start("n4", env=relays.env_for("n4"))  # the donors cannot all reach each other
    run.wait_members(*nodes, "n4")
    run.wait_rounds(5)
    run.leave("n2")  # now n4 alone joins the other two
    run.wait_members("n1", "n3", "n4")
    run.wait_rounds(5)
    run.finish("n1", "n3", "n4")


def test_a_relay_dies_and_those_behind_it_are_left_out_until_their_link_is_back(
    cluster: MakeCluster, relays: Relays
) -> None:
    run = cluster()
    up(run, relays, "n1", "n2", "n3", "n4", "n5")
    for other in ("n1", "n3", "n4"):
        relays.cut(other, "n5", Cut.RESET)
    wait_without(run, "n1-n5", "n3-n5", "n4-n5")
    run.kill("n2")
    run.wait_members("n1", "n3", "n4")
    run.wait_rounds(3)
    relays.heal()
    run.wait_members("n1", "n3", "n4", "n5")
    run.finish("n1", "n3", "n4", "n5")


def test_one_direction_of_a_link_is_lost(cluster: MakeCluster, relays: Relays) -> None:
    nodes = ("n1", "n2", "n3")
    run = cluster(CHAOS_TIMEOUT="0.5")
    up(run, relays, *nodes)
    relays.cut_one_way("n3", "n2")
    wait_without(run, "n2-n3")
    run.wait_rounds(5)
    relays.heal("n2", "n3")
    wait_without(run)
    assert never_left_out(run, *nodes)
    run.finish(*nodes)


def test_a_newcomer_needs_no_link_to_everybody(cluster: MakeCluster, relays: Relays) -> None:
    run = cluster("--ballast-kb", "1000")
    up(run, relays, "n1", "n2", "n3")
    relays.env_for("n4")
    relays.cut("n4", "n1", Cut.REFUSE)  # not even to the lead
    for donor in ("n2", "n3"):  # slow, or one of them might have given all before the other begins
        relays.shape(Shape(rate_mbit=20, delay_ms=1), donor, "n4")
    run.start("n4", env=relays.env_for("n4"))
    run.wait_members("n1", "n2", "n3", "n4")
    wait_without(run, "n1-n4")
    donors = {share["node"] for share in run.told("pull", "n4")[0]["per_donor"] if share["bytes"]}
    assert donors == {"n2", "n3"}
    relays.heal()
    wait_without(run)
    run.finish("n1", "n2", "n3", "n4")
