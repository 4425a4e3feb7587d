"""Networks break in two and heal: who goes on, who waits and says why, and what is left at last.

It takes half a minute: each test starts four or five nodes, waits for silence to be noticed, and
for those who come back to join one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster_fixtures import Cluster, MakeCluster

from lightning_chaos.demo.checks import check_digests, check_once, digests, stable_rounds
from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.lab.conditions import Cut, Shape
from lightning_chaos.testing.lab.relays import Relays


def up(run: Cluster, relays: Relays, *nodes: str) -> None:
    """Start these nodes behind the relays, so that their ages follow the names' order."""
    relays.shape(Shape(rate_mbit=200, delay_ms=1))
    for node in nodes:
        run.start(node, env={**relays.env_for(node), "CHAOS_MIN_MEMBERS": "1"})
        run.wait_told("start" if node == nodes[0] else "pull", node)
    run.wait_members(*nodes)
    run.wait_rounds(3)


def part(relays: Relays, some: Sequence[str], others: Sequence[str], how: Cut) -> None:
    """No link between these and those carries anything, from one moment on."""
    with relays.at_once():
        for a in some:
            for b in others:
                relays.cut(a, b, how)


def newest(run: Cluster, node: str) -> LogEvent:
    """The view that this node has used last."""
    return run.told("view", node)[-1]


def works(run: Cluster, *nodes: str) -> None:
    """Wait until the newest view of each is one of just these, and each has rounds under it."""

    def together(_: Sequence[LogEvent]) -> bool:
        for node in nodes:
            view = newest(run, node)
            after = [e for e in run.told("round", node) if e.t > view.t]
            if sorted(view["members"]) != sorted(nodes) or len(after) < 3:
                return False
        return True

    run.wait_for(together, run.bound_s, f"rounds of {', '.join(nodes)}")


def wait_for_quorum(run: Cluster, reachable: str, *nodes: str) -> None:
    """Wait until these have said that they wait for a quorum, and have not gone on since."""

    def waits(node: str) -> bool:
        said = [e for e in run.told("waiting", node) if e["reason"].startswith(reachable)]
        return bool(said) and all(e.t < said[-1].t for e in run.told("view", node))

    run.wait_for(lambda _: all(map(waits, nodes)), run.bound_s, f"{nodes} to wait for a quorum")


def test_the_smaller_side_waits_and_says_why_and_comes_back(
    cluster: MakeCluster, relays: Relays
) -> None:
    nodes = ("n1", "n2", "n3", "n4", "n5")
    run = cluster(CHAOS_TIMEOUT="0.5")
    up(run, relays, *nodes)
    part(relays, nodes[:3], nodes[3:], Cut.SILENT)
    works(run, *nodes[:3])
    wait_for_quorum(run, "2 of 5 members reachable", *nodes[3:])
    for node in nodes[3:]:
        assert "quorum='any' would go on alone" in run.told("waiting", node)[-1]["reason"]
    relays.heal()
    works(run, *nodes)
    run.finish(*nodes)


def test_who_waits_for_a_quorum_in_vain_ends_and_says_what_is_left(
    cluster: MakeCluster, relays: Relays, tmp_path: Path
) -> None:
    nodes = ("n1", "n2", "n3")
    env = {"CHAOS_SAVERS": "3", "CHAOS_MIN_MEMBERS": "3", "CHAOS_QUORUM_TIMEOUT": "0.5"}
    run = cluster("--checkpoints", str(tmp_path), "--pause", "n1=saved", CHAOS_TIMEOUT="0.5", **env)
    relays.shape(Shape(rate_mbit=200, delay_ms=1))
    for node in nodes:
        run.start(node, env=relays.env_for(node))
    step = run.wait_told("pauses", "n1")["step"]
    # n3 has a checkpoint that it does not know of yet whether the others have it, too.
    saved = run.wait_told_that(
        lambda e: (e.event, e.node, e.get("step")) == ("saved", "n3", step),
        "n3 to save what n1 has saved",
    )
    part(relays, nodes[:2], nodes[2:], Cut.SILENT)
    assert run.wait_exit("n3", run.bound_s) == 1
    said = run.tail("n3", 2)
    for words in (
        "QuorumLost: 1 of 3 members reachable; waiting for quorum for 0.5 s in vain",
        "Bring the others back",
        "quorum='any'",
        f"The newest checkpoint: {saved['path']}",
    ):
        assert words in said, said
    run.wait_gone(run.peer_pids("n3")[0])
    for node in nodes[:2]:
        run.kill(node)


def test_a_firewall_between_two_halves_lets_one_of_them_go_on(
    cluster: MakeCluster, relays: Relays
) -> None:
    nodes = ("n1", "n2", "n3", "n4")
    run = cluster(CHAOS_TIMEOUT="0.5")
    up(run, relays, *nodes)
    part(relays, nodes[:2], nodes[2:], Cut.RESET)
    part(relays, nodes[:2], nodes[2:], Cut.REFUSE)
    works(run, *nodes[:2])
    wait_for_quorum(run, "2 of 4 members reachable", *nodes[2:])
    relays.heal()
    works(run, *nodes)
    run.finish(*nodes)


def test_a_side_that_went_on_alone_joins_again_when_they_meet(
    cluster: MakeCluster, relays: Relays
) -> None:
    nodes = ("n1", "n2", "n3", "n4")
    run = cluster(CHAOS_TIMEOUT="0.5", CHAOS_QUORUM="any")
    up(run, relays, *nodes)
    part(relays, nodes[:3], nodes[3:], Cut.SILENT)
    works(run, *nodes[:3])
    works(run, "n4")
    assert newest(run, "n4")["island"].startswith("n4/")
    assert newest(run, "n1")["island"] == ""
    relays.heal()
    works(run, *nodes)
    ends_as_one(run, "n1", *nodes)


def test_a_run_without_training_never_takes_the_place_of_one_with_it(
    cluster: MakeCluster, tmp_path: Path
) -> None:
    run = cluster("--ballast-kb", "100")
    run.up("n1", "n2")
    elsewhere = {"XDG_RUNTIME_DIR": str(tmp_path)}
    run.start("n3", env={**elsewhere, "CHAOS_MIN_MEMBERS": "2"})
    run.wait_told("ready", "n3")
    assert newest(run, "n3")["members"] == ["n3"]  # it has not found the others
    both = ",".join(run.told("start", node)[0]["address"] for node in ("n3", "n1"))
    run.start("n4", env={**elsewhere, "CHAOS_PEERS": both})
    works(run, "n1", "n2", "n3", "n4")
    assert not run.told("pull", "n1")
    ends_as_one(run, "n1", "n1", "n2", "n3", "n4")


def ends_as_one(run: Cluster, whole: str, *nodes: str) -> None:
    """They end with one state, and in the history that has stayed every sample counted once.

    Args:
        run: asked to stop.
        whole: a node that was there from the first round on and never dropped out.
        nodes: all of them.
    """
    run.stop()
    for node in nodes:
        code = run.wait_exit(node, run.bound_s)
        assert code == 0, f"{node} ended with {code}:\n{run.tail(node, 40)}"
    rounds, failures = stable_rounds([e for e in run.events if e.node == whole])
    failures += check_digests(digests(run.events), nodes)
    failures += check_once(rounds)[1]
    assert not failures, failures
