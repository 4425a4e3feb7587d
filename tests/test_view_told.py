"""What training does when it is told of a view is the same at all members, and in a replay."""

from __future__ import annotations

from cluster_fixtures import SCRIPTS, Cluster, MakeCluster, replayed

from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.launch import ForkServer


def steps_before(run: Cluster, node: str, epoch: int) -> int:
    """How many steps that node had taken when the view came into force there."""
    came = next(e.t for e in run.told("view", node) if e["epoch"] == epoch)
    return max(int(e["step"]) for e in run.told("step", node) if e.t < came)


def test_a_view_that_comes_while_only_some_have_finished_a_round_is_told_to_all_at_one_step(
    cluster: MakeCluster, relays: Relays, fork_server: ForkServer
) -> None:
    run = cluster(script=SCRIPTS / "told.py", CHAOS_TIMEOUT="0.5", CHAOS_MIN_MEMBERS="3")
    for node in "abc":
        run.start(node, env=relays.env_for(node))
        run.wait_told("start" if node == "a" else "pull", node)
    run.wait_members("a", "b", "c")
    run.wait_rounds(3)
    before = max(e["epoch"] for e in run.told("view"))
    relays.cut_one_way("a", "b")  # b cannot finish the round in which this happens, a and c can
    view = run.wait_told_that(
        lambda e: e.event == "view" and e["epoch"] > before and bool(e["missing"]),
        "a view without a link",
    )["epoch"]
    run.wait_rounds(5)
    run.finish("a", "b", "c")
    steps = {node: steps_before(run, node, view) for node in "abc"}
    assert steps["a"] == steps["c"] == steps["b"] + 1
    code, said = replayed(fork_server, run.log_dir)
    assert code == 0, said
