"""A newcomer pulls over links that differ: as planned, by what it measured of them.

Ten seconds: three nodes pull the state one after another, the last over slow links.
"""

from __future__ import annotations

import pytest
from cluster_fixtures import MakeCluster

from lightning_chaos.demo.checks import check_plan, pulls
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays

# So slow that the processors are not what limits them, also where others want these too.
RATES_MBIT = {"n1": 100, "n2": 50, "n3": 25}


def test_donors_give_by_the_rates_of_their_links_and_as_planned(
    cluster: MakeCluster, relays: Relays
) -> None:
    for node, rate in RATES_MBIT.items():
        relays.shape(Shape(rate_mbit=rate, delay_ms=5), node, "n4")
    run = cluster("--ballast-kb", "24000")
    for node in RATES_MBIT:
        run.start(node, env={**relays.env_for(node), "CHAOS_MIN_MEMBERS": "3"})
        run.wait_told("start" if node == "n1" else "pull", node)
    run.start("n4", env=relays.env_for("n4"))
    run.wait_members(*RATES_MBIT, "n4")
    (pull,) = run.told("pull", "n4")
    assert check_plan(pulls(run.events), "n4") == []
    # that of a link is known once a transfer was seen for half a second
    assert 0.5 < pull["planned_s"] < pull["predicted_s"]
    for share in pull["per_donor"]:
        rate = RATES_MBIT[share["node"]]
        assert share["bytes"] / pull["bytes"] == pytest.approx(rate / 175, abs=0.05)
        assert share["bytes_per_s"] == pytest.approx(rate * 125e3, rel=0.15)
    run.finish(*RATES_MBIT, "n4")
