"""All nodes are gone: those that come back go on from the newest checkpoint on their own disks.

Real processes; each node writes checkpoints and its run log to a disk of its own.  The first test
takes more than ten seconds: it starts nine training processes, one after another where their order
matters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cluster_fixtures import Cluster, MakeCluster
from scripts.train import SAVE_EVERY, digest_of

from lightning_chaos.errors import StateError
from lightning_chaos.monitor.runlog import LogEvent, RunLog, last_rounds
from lightning_chaos.protocol.values import Past
from lightning_chaos.skin.lineage import KEY, Lineage, lost_rounds, past_of, stamp


class Disks:
    """One directory for each machine, for its checkpoints and run logs."""

    def __init__(self, cluster: MakeCluster, root: Path, **env: str) -> None:
        self.root = root
        self.run: Cluster = cluster("--disks", str(root), **env)

    def start(self, node: str, disk: str, min_members: int) -> None:
        """Start a node on that disk; it goes on from what is there."""
        log = str(self.run.log_dir / disk)
        env = {"DISK": disk, "CHAOS_LOG": log, "CHAOS_MIN_MEMBERS": str(min_members)}
        self.run.start(node, env=env)

    def saved(self, disk: str) -> dict[str, Any]:
        """The newest checkpoint on that disk."""
        found: dict[str, Any] = torch.load(self.root / disk / "last.ckpt", weights_only=False)
        return found

    def wait_saved(self, node: str) -> LogEvent:
        """Wait for a checkpoint that this node writes from now on."""
        before = len(self.run.told("saved", node))
        return self.run.wait_told("saved", node, times=before + 2)  # the second one is whole

    def known_rounds(self, *disks: str) -> int:
        """Stable rounds of the first generation that the logs on these disks tell of."""
        events = [e for disk in disks for e in last_rounds(self.run.log_dir / disk, self.run.run)]
        return max(int(e["trained"]) for e in events if e["generation"] == 0)


def test_all_five_die_and_three_go_on_from_the_newest_checkpoint_among_their_disks(
    cluster: MakeCluster, tmp_path: Path
) -> None:
    disks = Disks(cluster, tmp_path / "disks")
    run = disks.run
    for node in "abcde":
        disks.start(node, node, 5)
    run.wait_members(*"abcde")
    first = run.members[0]
    disks.wait_saved(first)
    run.kill(first)  # its checkpoint grows old
    run.wait_members(*(set("abcde") - {first}))
    second, third = run.members[:2]
    disks.start("back", first, 5)  # into the run that goes on: what it holds is no reason to found
    run.wait_members(*(set("abcde") - {first}), "back")
    disks.wait_saved(second)

    members = run.members
    for node in members:
        run.suspend(node)  # at once
    for node in members:
        run.kill(node)
    older, newest = disks.saved(first), disks.saved(second)
    assert older["global_step"] < newest["global_step"]
    assert not (tmp_path / "disks" / third).exists()

    disks.start("new", third, 3)  # the one without a checkpoint is there first
    run.wait_for(lambda _: "1 of 3 nodes are here to found" in run.tail("new"), 20.0, "new to wait")
    disks.start("old", first, 3)
    run.wait_for(lambda _: "2 of 3 nodes are here to found" in run.tail("old"), 20.0, "old to wait")
    disks.start("newest", second, 3)
    run.wait_members("new", "old", "newest")
    restart = run.wait_told("restart")
    assert restart.node == "newest"
    assert restart["generation"] == run.generation == 1
    assert restart["round"] == newest["global_step"] == newest[KEY]["rounds"]
    assert restart["samples"] == newest[KEY]["samples"]
    assert restart["lost_rounds"] == (
        disks.known_rounds(first, second, third) - newest["global_step"]
    )
    assert f"are lost: {restart['lost_rounds']}" in run.tail("newest", 60)
    assert run.told("fits", "newest")[0]["digest"] == digest_of(newest["state_dict"])
    assert {e.node for e in run.told("pull")} >= {"new", "old"}
    began = min(run.now("round"), key=lambda e: e["round"])
    assert began["trained"] == newest["global_step"] + 1
    disks.wait_saved("newest")
    assert disks.saved(second)[KEY]["generation"] == 1
    run.finish("new", "old", "newest")


def test_an_untrained_run_does_not_take_in_a_node_with_a_checkpoint(
    cluster: MakeCluster, tmp_path: Path
) -> None:
    disks = Disks(cluster, tmp_path / "disks")
    run = disks.run
    disks.start("a", "a", 1)
    disks.wait_saved("a")
    run.kill("a")
    before = disks.saved("a")
    # Not told to go on from anything, so it founds alone; it has to wait for a second member.
    run.start("untrained", env={"CHAOS_MIN_MEMBERS": "2"})
    run.wait_told("start", "untrained")
    disks.start("back", "a", 2)
    assert run.wait_exit("back", 20.0) == 1
    assert "LineageError: this node was to go on from a checkpoint" in run.tail("back", 60)
    assert disks.saved("a")["global_step"] == before["global_step"]
    assert not run.told("round", "untrained")


def test_a_lone_node_goes_on_as_the_next_generation_each_time(
    cluster: MakeCluster, tmp_path: Path
) -> None:
    disks = Disks(cluster, tmp_path / "disks")
    run = disks.run
    for generation, node in enumerate("abc"):
        disks.start(node, "one", 1)
        disks.wait_saved(node)
        assert run.generation == generation
        run.kill(node)
    restarts = run.told("restart")
    assert [e["generation"] for e in restarts] == [1, 2]
    assert 0 < restarts[0]["round"] < restarts[1]["round"]
    assert all(0 <= e["lost_rounds"] <= SAVE_EVERY + 2 for e in restarts)


def test_as_many_members_as_asked_for_save_to_their_own_disks(
    cluster: MakeCluster, tmp_path: Path
) -> None:
    disks = Disks(cluster, tmp_path / "disks", CHAOS_SAVERS="2")
    run = disks.run
    for node in "abc":
        disks.start(node, node, 3)
    run.wait_members(*"abc")
    oldest, next_one, last = run.members
    disks.wait_saved(next_one)
    run.finish(*"abc")
    kept = [disks.saved(disk) for disk in (oldest, next_one)]
    assert kept[0]["global_step"] == kept[1]["global_step"]
    assert kept[0][KEY] == kept[1][KEY]
    assert digest_of(kept[0]["state_dict"]) == digest_of(kept[1]["state_dict"])
    assert not (tmp_path / "disks" / last).exists()


# ---- lineage -------------------------------------------------------------------------------


def test_a_checkpoint_of_this_run_is_newer_than_any_other() -> None:
    own: dict[str, Any] = {"global_step": 7}
    stamp(own, Lineage("r", 2, 5, 40, 7))
    assert past_of(own, "r", "") == Past(2, 40, 7)
    assert past_of(own, "another run", "") == Past(0, 0, 7)
    assert past_of({"global_step": 900}, "r", "") == Past(0, 0, 900)
    assert past_of(None, "r", "") == Past()
    order = [None, {"global_step": 7}, {"global_step": 900}, own]
    lineages = [past_of(checkpoint, "r", "").lineage for checkpoint in order]
    assert lineages == sorted(lineages)


def test_a_lineage_that_is_not_understood_is_an_error() -> None:
    with pytest.raises(StateError, match=r"lineage .* is not understood"):
        past_of({KEY: {"run": 5}}, "r", "")


@pytest.mark.parametrize(
    ("told", "lost"), [((-1, 0), None), ((0, 99), None), ((1, 52), 2), ((1, 40), 0), ((2, 55), 5)]
)
def test_lost_rounds_are_those_that_logs_tell_of_after_the_checkpoint(
    told: tuple[int, int], lost: int | None
) -> None:
    assert lost_rounds(Past(1, 400, 50), told) == lost


def test_logs_tell_of_the_last_round_of_every_stay_in_the_run(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "a.jsonl", "a")
    for run, generation, trained in (("r", 0, 30), ("other", 0, 99), ("r", 1, 12)):
        log.write("start", run=run)
        for k in (2, 1, 0):
            log.write("round", generation=generation, trained=trained - k)
    log.close()
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"t":1,"node":"a","event":"round","trained":1')  # killed while it wrote
    found = [(e["generation"], e["trained"]) for e in last_rounds(tmp_path, "r")]
    assert found == [(0, 30), (1, 12)]
    assert past_of(None, "r", str(tmp_path)).told == (1, 12)
