"""Runs of real processes on hosts of the lab, with the kernel's own TCP between them.

Some 15 seconds: the first node of a list waits two before it founds a run alone, three times.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from itertools import product

import pytest
from cluster_fixtures import BOUND_S, Cluster, MakeCluster, await_text

from lightning_chaos.testing.fixtures import MakeNamespaces
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.director import Director
from lightning_chaos.testing.lab.faults import Schedule, at
from lightning_chaos.testing.lab.survival import survivable
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.testing.launch import ForkServer

pytestmark = pytest.mark.root
STATE_BYTES = 1000 << 10


@pytest.fixture
def network(namespaces: MakeNamespaces) -> Namespaces:
    """Four hosts at a round trip of 20 ms."""
    made = namespaces(4)
    made.shape(Shape(rate_mbit=100, delay_ms=10))
    return made


def finish(run: Cluster, network: Namespaces, *nodes: str) -> None:
    """End the run from one of its hosts, as a user would there."""
    command = [sys.executable, "-m", "lightning_chaos.cli", "stop", "--run", run.run]
    with network.popen(nodes[0], command, stdout=subprocess.PIPE) as asking:
        asking.communicate(timeout=BOUND_S)
    assert asking.returncode == 0
    run.ended_well(*nodes)


def test_the_demos_faults_at_a_round_trip_of_20_ms(
    cluster: MakeCluster, network: Namespaces, fork_server: ForkServer
) -> None:
    run = cluster("--ballast-kb", str(STATE_BYTES >> 10), launcher=network.launcher(fork_server))
    first = ("n1", "n2", "n3")
    run.start("n1")
    run.wait_told("start", "n1")  # it is the oldest
    run.start("n2", "n3")
    run.wait_members(*first)
    run.start("n4")
    run.wait_members(*first, "n4")
    run.wait_rounds(5)
    run.kill("n1")
    run.wait_members("n2", "n3", "n4")
    run.wait_rounds(5)
    run.leave("n2")
    run.wait_members("n3", "n4")
    run.wait_rounds(5)
    assert sum(network.carried_bytes()[n, "n4"] for n in first) > STATE_BYTES
    finish(run, network, "n3", "n4")


def test_a_lead_cut_off_from_the_others_is_left_out_and_comes_back(
    cluster: MakeCluster, network: Namespaces, fork_server: ForkServer
) -> None:
    nodes = ("n1", "n2", "n3")
    run = cluster(launcher=network.launcher(fork_server))
    run.start("n1")
    run.wait_told("start", "n1")
    run.start("n2", "n3")
    run.wait_members(*nodes)
    now = run.round  # n1 has trained alone until the others were there
    script = Schedule.of(
        at(round=now + 1).cut("n1", "n2"),
        at(round=now + 1).cut("n1", "n3"),
        at(round=now + 30).heal(),
        at(round=now + 31).throttle("n2", "n3", Shape(rate_mbit=20, delay_ms=10, loss_percent=0.1)),
    )
    assert survivable(script, nodes, one_host=False).survives
    with Director(script, run, network) as director:
        director.run(timeout_s=40)
    assert any(set(e["members"]) == {"n2", "n3"} for e in run.told("view"))
    run.wait_members(*nodes)
    assert run.members[-1] == "n1"
    finish(run, network, *nodes)


def test_on_hosts_of_their_own_two_wait_when_the_older_one_is_killed(
    cluster: MakeCluster, network: Namespaces, fork_server: ForkServer
) -> None:
    run = cluster(launcher=network.launcher(fork_server))
    for node in ("n1", "n2"):
        run.start(node)
        run.wait_told("start", node)
    run.wait_members("n1", "n2")
    run.kill("n1")
    await_text(run.output("n2"), "waiting for quorum")
    assert run.members == ["n1", "n2"]


def test_a_firewall_that_rejects_between_two_halves_lets_one_of_them_go_on(
    cluster: MakeCluster, network: Namespaces, fork_server: ForkServer
) -> None:
    halves = ("n1", "n2"), ("n3", "n4")
    nodes = (*halves[0], *halves[1])
    run = cluster(launcher=network.launcher(fork_server), CHAOS_TIMEOUT="0.5")
    for node in nodes:
        run.start(node)
        run.wait_told("start" if node == nodes[0] else "pull", node)
    run.wait_members(*nodes)

    reject(network, *halves)
    run.wait_members(*halves[0])
    run.wait_rounds(5)
    for node in halves[1]:
        await_text(run.output(node), "waiting: 2 of 4 members reachable; waiting for quorum")
        assert run.told("view", node)[-1]["members"] == [*nodes]  # it has not gone on
    reject(network, *halves, undo=True)
    run.wait_members(*nodes)
    finish(run, network, *nodes)


def reject(
    network: Namespaces, some: tuple[str, ...], others: tuple[str, ...], *, undo: bool = False
) -> None:
    """The kernels of both halves refuse whatever is to go to the other one, and say so."""
    word = "del" if undo else "add"
    with contextlib.ExitStack() as stack:  # at once: one after the other takes long
        routings = [
            stack.enter_context(
                network.popen(node, ["ip", "route", word, "prohibit", network.address_of(other)])
            )
            for node, other in (*product(some, others), *product(others, some))
        ]
        assert [routing.wait(BOUND_S) for routing in routings] == [0] * len(routings)
