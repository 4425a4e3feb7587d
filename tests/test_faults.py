"""Real processes, real signals: whoever dies, the others go on and every sample counts once."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import torch
from cluster_fixtures import Cluster, MakeCluster
from scripts.train import digest_of, moments


def test_of_two_nodes_either_goes_on_alone_and_can_be_joined_again(cluster: MakeCluster) -> None:
    run = cluster()
    run.up("a", "b")
    run.kill("b")
    run.wait_members("a")
    run.start("c")
    run.wait_members("a", "c")
    run.kill("a")  # the founder, the lead, rank zero
    run.wait_members("c")
    run.start("d")  # found although the founder is gone
    run.wait_members("c", "d")
    run.finish("c", "d")


def test_three_nodes_lose_their_lead_and_then_their_youngest(cluster: MakeCluster) -> None:
    run = cluster()
    run.up("a", "b", "c", "d")
    run.kill("a")
    run.wait_members("b", "c", "d")
    run.kill("d")
    run.wait_members("b", "c")
    run.wait_rounds(5)
    run.finish("b", "c")


def test_two_of_four_are_killed_at_once(cluster: MakeCluster) -> None:
    run = cluster()
    run.up("a", "b", "c", "d")
    run.kill("a")
    run.kill("b")
    run.wait_members("c", "d")
    run.wait_rounds(5)
    run.finish("c", "d")


def test_a_killed_peer_costs_its_worker_the_seat_for_a_moment_and_a_killed_worker_for_good(
    cluster: MakeCluster,
) -> None:
    run = cluster()
    run.up("a", "b", "c")
    run.kill_peer("a")
    run.wait_told("start", "a", times=2)
    run.wait_members("b", "c", "a")
    assert run.members == ["b", "c", "a"]  # it came back as the youngest
    run.wait_rounds(2)
    first, second = run.told("start", "a")
    assert first["pid"] == second["pid"]
    assert first["uid"] != second["uid"]

    run.kill_worker("b")
    assert run.wait_exit("b", run.bound_s) == -signal.SIGKILL
    run.wait_members("c", "a")
    run.wait_gone(run.peer_pids("b")[-1])
    run.finish("a", "c")


def test_a_node_that_is_alone_founds_the_run_anew_when_its_peer_dies(cluster: MakeCluster) -> None:
    run = cluster()
    run.up("a")
    run.wait_rounds(3)
    run.kill_peer("a")
    run.wait_told("start", "a", times=2)
    run.wait_rounds(5)
    assert [e["epoch"] for e in run.told("view", "a")] == [1, 2]
    rounds = [e["round"] for e in run.told("round", "a")]
    assert rounds == list(range(len(rounds)))  # the one that its peer's death fell into, too
    run.start("b")
    run.wait_members("a", "b")
    run.finish("a", "b")


def test_a_worker_comes_back_three_times_in_a_row_and_no_more(cluster: MakeCluster) -> None:
    run = cluster("--holds")
    run.up("a", "b")
    run.hold("a")  # so no round is finished in between
    run.wait_told("holds", "a")
    for times in range(1, 5):
        run.wait_told("start", "b", times=times)
        run.kill_peer("b")
    assert run.wait_exit("b", run.bound_s) == 1
    assert "NodeLost: this node fell out of the run 4 times" in run.tail("b", 40)
    run.let_go("a")
    run.wait_members("a")
    run.finish("a")


def test_a_peer_that_is_killed_before_it_has_found_the_run_counts_as_one_more_time(
    cluster: MakeCluster,
) -> None:
    run = cluster()
    run.up("a", "b")
    worker = psutil.Process(int(run.told("start", "b")[-1]["pid"]))
    old = run.peer_pids("b")[-1]
    run.suspend("a", worker=False)  # so nobody answers the next peer
    run.kill_peer("b")

    def its_next_peer(_: object) -> psutil.Process | None:
        return next((p for p in worker.children() if p.pid != old), None)

    next_peer = run.wait_for(its_next_peer, run.bound_s, "b to start another peer")
    assert next_peer is not None
    next_peer.kill()
    run.resume("a")
    run.wait_told("start", "b", times=2)
    run.wait_members("a", "b")
    assert next_peer.pid not in run.peer_pids("b")
    run.finish("a", "b")


def test_a_newcomer_that_dies_while_it_pulls_holds_nobody_up(cluster: MakeCluster) -> None:
    run = cluster("--ballast-kb", "4000", CHAOS_LINK_RATE="16")
    run.up("a", "b")
    run.start("c")
    run.wait_told("pulling", "c")
    run.kill_worker("c")
    run.wait_rounds(5)
    assert run.members == ["a", "b"]
    run.finish("a", "b")


def test_a_pull_goes_on_when_a_donor_dies(cluster: MakeCluster) -> None:
    run = cluster("--ballast-kb", "4000", CHAOS_LINK_RATE="16")
    run.up("a", "b", "c")
    run.start("d")
    # All have begun, so no donor has a state that another one would have to make anew.
    run.wait_for(lambda _: _serve(run, "d", "a", "b", "c"), run.bound_s, "all to serve shards")
    run.kill("a")
    run.wait_members("b", "c", "d")
    pull = run.told("pull", "d")[-1]
    sent = sum(share["bytes"] for share in pull["per_donor"])
    assert sent <= pull["bytes"] + 4 * pull["shard_bytes"]
    assert {share["node"] for share in pull["per_donor"] if share["bytes"]} >= {"b", "c"}
    run.finish("b", "c", "d")


def _serve(run: Cluster, newcomer: str, *donors: str) -> bool:
    """These have sent the newcomer something."""
    told = run.told("pulling", newcomer)
    return bool(told) and all(told[-1]["per_donor"].get(donor) for donor in donors)


def test_rank_zero_dies_inside_validation_before_a_save_and_after_it(
    cluster: MakeCluster, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    places = {"a": "validating", "b": "saving", "c": "saved"}
    words = [f"{node}={place}" for node, place in places.items()]
    run = cluster("--validate", "--checkpoints", str(folder), "--pause", *words)
    run.up("a", "b", "c", "d")
    steps = []
    for node, place in places.items():  # each of them rank zero by then
        steps.append(run.wait_told("pauses", node)["step"])
        assert run.told("pauses", node)[-1]["place"] == place
        run.kill(node)
    run.wait_members("d")
    saved = run.wait_told_that(
        lambda e: e.event == "saved" and e.node == "d" and e["step"] > steps[-1],
        "d to save the next checkpoint",
    )
    run.finish("d")

    assert len(set(steps)) == 1  # all three at the end of the same epoch
    states = {e["step"]: e["digest"] for e in run.told("state")}
    optimizers = {e["step"]: e["moments"] for e in run.told("state")}
    # What the survivors had, and those before them: nobody differs.
    assert all(states[e["step"]] == e["digest"] for e in run.told("state"))
    assert all(optimizers[e["step"]] == e["moments"] for e in run.told("state"))
    assert steps[0] in {e["step"] for e in run.told("state", "d")}
    files = {int(path.stem.partition("=")[2]): path for path in folder.glob("*.ckpt")}
    assert {steps[0], saved["step"]} <= files.keys()
    for step, path in files.items():
        checkpoint = torch.load(path, weights_only=False)
        assert checkpoint["global_step"] == step
        assert digest_of(checkpoint["state_dict"]) == states[step]
        assert digest_of(moments(checkpoint["optimizer_states"][0])) == optimizers[step]
        assert checkpoint["lightning_chaos"]["rounds"] == step


def test_a_node_dies_in_the_last_round_of_an_epoch(cluster: MakeCluster) -> None:
    run = cluster("--pause", "a=last round")
    run.up("a", "b", "c")
    run.wait_told("pauses", "a")
    run.kill("a")
    run.wait_members("b", "c")
    run.wait_told("state", "b", times=4)
    run.finish("b", "c")


def test_a_worker_that_alone_is_stopped_is_missed_within_the_timeout(cluster: MakeCluster) -> None:
    run = cluster()
    run.up("a", "b", "c")
    stopped = time.time()
    run.suspend("a", peer=False)
    run.wait_members("b", "c")
    view = run.told("view", "b")[-1]
    assert view.t - stopped >= 1.0  # not before the timeout
    assert "its worker was stopped for more than 1 s" in view["reason"]
    run.wait_rounds(5)
    run.resume("a")
    run.wait_members("b", "c", "a")
    run.finish("a", "b", "c")


def test_a_lone_node_may_be_stopped_as_long_as_you_like(cluster: MakeCluster) -> None:
    run = cluster(CHAOS_TIMEOUT="0.2")
    run.up("a")
    run.suspend("a", peer=False)
    time.sleep(1.0)  # nothing may happen, so there is nothing to wait for
    run.resume("a")
    run.wait_rounds(3)
    assert [e["epoch"] for e in run.told("view", "a")] == [1]
    run.finish("a")


def test_a_node_that_slept_too_long_comes_back_as_a_newcomer(cluster: MakeCluster) -> None:
    run = cluster()
    run.up("a", "b", "c")
    run.suspend("a")
    run.wait_members("b", "c")
    run.wait_rounds(5)
    run.resume("a")
    run.wait_members("b", "c", "a")
    assert len({e["pid"] for e in run.told("start", "a")}) == 1
    run.finish("a", "b", "c")
