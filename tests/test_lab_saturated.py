"""A link that is full of data does not cost a heartbeat (design §4).

100 MB take more than 80 seconds at 10 Mbit/s, and hardly any processor: that test is ``patient``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_fixtures import SCRIPTS, Cluster, MakeCluster
from control_sockets import longest_silences

from lightning_chaos.testing.fixtures import MakeNamespaces
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.testing.launch import ForkServer

pytestmark = pytest.mark.root

NARROW = Shape(rate_mbit=10, delay_ms=10)
BYTES_PER_S = 10e6 / 8
TRANSFER_BYTES = 100_000_000
FULL_AFTER_BYTES = 2 << 20
BUSY = 0.75
"""What TCP makes of a full link at least: the queue that it overfills runs dry when it slows down
(three runs on a quiet machine: 0.89, 0.93, 0.94)."""
FULL_S = 5
"""So many seconds of it have to be full.  Its queue makes a round trip of 1.6 s, and after what is
lost as the link becomes narrow TCP takes some of them to fill it again."""
TIMEOUT_S = 1.0
"""The default of the longest silence that is tolerated."""
CHANGES = {"commit", "freeze", "links", "waiting"}
"""What a node tells when its view changes, or stands still for want of somebody."""


class FullSeconds:
    """Counts the seconds in which the link from n1 to n2 was full."""

    def __init__(self, network: Namespaces) -> None:
        self._network = network
        self._carried, self._at = self._now(), time.monotonic()
        self.count = 0

    def look(self) -> int:
        """How many there have been; to be asked more than once a second."""
        now = time.monotonic()
        if (lasted_s := now - self._at) >= 1.0:
            carried = self._now()
            self.count += carried - self._carried > BUSY * BYTES_PER_S * lasted_s
            self._carried, self._at = carried, now
        return self.count

    def _now(self) -> int:
        return self._network.carried_bytes()["n1", "n2"]


def watch(run: Cluster, over: Callable[[], bool]) -> None:
    """Neither is silent for too long, until that is over."""
    pids = {node: run.peer_pids(node)[-1] for node in ("n1", "n2")}
    silences = longest_silences(pids, over)
    print({f"{other} to {node}": round(s, 3) for (node, other), s in silences.items()})
    assert len(silences) == 2
    assert max(silences.values()) < TIMEOUT_S


def nothing_changed(run: Cluster, since: float, until: float) -> bool:
    """Nobody has told of a change between these times, seconds since 1970."""
    return not [e for e in run.events if e.event in CHANGES and since < e.t < until]


def begin(
    cluster: MakeCluster, network: Namespaces, server: ForkServer, *args: str | Path
) -> Cluster:
    """The first node of a run trains."""
    script, *words = args
    run = cluster(*map(str, words), script=SCRIPTS / script, launcher=network.launcher(server))
    run.start("n1")
    run.wait_told("round", "n1")
    return run


def test_gradients_that_fill_a_link_cost_no_heartbeat(
    cluster: MakeCluster, namespaces: MakeNamespaces, fork_server: ForkServer
) -> None:
    network = namespaces(2)
    run = begin(cluster, network, fork_server, "heavy.py")
    run.start("n2")
    run.wait_members("n1", "n2")
    network.shape(NARROW)
    before = network.carried_bytes()["n1", "n2"]
    run.wait_for(
        lambda _: network.carried_bytes()["n1", "n2"] > before + FULL_AFTER_BYTES,
        run.bound_s,
        "more data than the queue holds",
    )
    begun, late = time.time(), time.monotonic() + 60.0
    full = FullSeconds(network)
    watch(run, lambda: full.look() >= FULL_S or time.monotonic() > late)
    assert full.count >= FULL_S, "the link was not full"
    run.poll()
    assert nothing_changed(run, begun, time.time())


@pytest.mark.patient
@pytest.mark.timeout(240)
def test_a_pull_of_100_MB_over_10_Mbit_per_second_costs_no_heartbeat(
    cluster: MakeCluster, namespaces: MakeNamespaces, fork_server: ForkServer
) -> None:
    network = namespaces(2)
    network.shape(NARROW)
    run = begin(cluster, network, fork_server, "train.py", "--ballast-kb", "100000")
    run.start("n2")
    run.wait_told("pulling", "n2")
    late = time.monotonic() + 200.0

    def pulled() -> bool:
        run.poll()
        return bool(run.told("pull", "n2")) or time.monotonic() > late

    begun, before = time.monotonic(), network.carried_bytes()["n1", "n2"]
    watch(run, pulled)
    carried = network.carried_bytes()["n1", "n2"] - before
    assert carried > BUSY * BYTES_PER_S * (time.monotonic() - begun), "the link was not full"
    (pull,) = run.told("pull", "n2")
    assert pull["bytes"] > TRANSFER_BYTES
    assert pull["seconds"] > TRANSFER_BYTES / BYTES_PER_S
    first, *_, last = run.told("pulling", "n2")
    assert nothing_changed(run, first.t, last.t)
    network.shape(Shape())
    run.wait_members("n1", "n2")
