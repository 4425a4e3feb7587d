"""A link that is full of data does not cost a heartbeat (design §4).

100 MB at 10 Mbit/s take 80 seconds, of which a test watches ten: the queue before a link is full
after one of them and stays so until the end, so later seconds are no different.  Twice ten seconds
of watching, and as long again to bring 100 MB to the newcomers before.
"""

from __future__ import annotations

import pytest
from cluster_fixtures import SCRIPTS, Cluster, MakeCluster
from control_sockets import longest_silences

from lightning_chaos.testing.fixtures import MakeNamespaces
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.testing.launch import ForkServer

pytestmark = pytest.mark.root

NARROW = Shape(rate_mbit=10, delay_ms=10)
FULL_AFTER_BYTES = 2 << 20
WATCH_S = 10.0
BUSY = 0.75
"""What TCP makes of a link at least: the queue that it overfills runs dry when it slows down (three
runs on a quiet machine: 0.89, 0.93, 0.94)."""
TIMEOUT_S = 1.0
"""The default of the longest silence that is tolerated."""


def fill(run: Cluster, network: Namespaces, source: str, target: str) -> None:
    """Wait until the link has carried more than its queue holds."""
    before = network.carried_bytes()[source, target]
    run.wait_for(
        lambda _: network.carried_bytes()[source, target] > before + FULL_AFTER_BYTES,
        run.bound_s,
        f"data from {source} to {target}",
    )


def watch(run: Cluster, network: Namespaces, source: str, target: str, *nodes: str) -> None:
    """While that link is full nobody is silent for too long, and nothing is agreed anew."""
    fill(run, network, source, target)
    told = {event: len(run.told(event)) for event in ("commit", "freeze", "links", "waiting")}
    before = network.counts()[source, target].arrived_bytes
    silences = longest_silences({n: run.peer_pids(n)[-1] for n in nodes}, WATCH_S)
    carried = network.counts()[source, target].arrived_bytes - before
    print({f"{other} to {node}": round(s, 3) for (node, other), s in silences.items()})
    assert carried > BUSY * WATCH_S * 10e6 / 8, "the link was full most of the time"
    assert {event: len(run.told(event)) for event in told} == told
    assert len(silences) == len(nodes) * (len(nodes) - 1)
    assert max(silences.values()) < TIMEOUT_S


def test_gradients_that_fill_a_link_cost_no_heartbeat(
    cluster: MakeCluster, namespaces: MakeNamespaces, fork_server: ForkServer
) -> None:
    network = namespaces(2)
    run = cluster(script=SCRIPTS / "heavy.py", launcher=network.launcher(fork_server))
    run.start("n1")
    run.wait_told("start", "n1")
    run.start("n2")
    run.wait_members("n1", "n2")
    network.shape(NARROW)
    watch(run, network, "n1", "n2", "n1", "n2")


def test_a_pull_that_fills_its_links_costs_no_heartbeat(
    cluster: MakeCluster, namespaces: MakeNamespaces, fork_server: ForkServer
) -> None:
    network = namespaces(3)
    run = cluster("--ballast-kb", "100000", launcher=network.launcher(fork_server))
    run.start("n1")
    run.wait_told("start", "n1")
    run.start("n2")
    run.wait_members("n1", "n2")
    network.shape(NARROW)
    run.start("n3")
    run.wait_told("pulling", "n3")
    watch(run, network, "n1", "n3", "n1", "n2", "n3")
