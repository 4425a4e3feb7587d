"""Several nodes in one fit: Lightning's features do the same at all of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cluster_fixtures import SCRIPTS, Cluster, MakeCluster, cluster

__all__ = ["cluster"]


def told(run: Cluster, event: str, node: str, *names: str) -> list[tuple[Any, ...]]:
    """These fields of all events of one kind of one node."""
    return [tuple(e[n] for n in names) for e in run.told(event, node)]


def make(cluster: MakeCluster, members: int, **wants: Any) -> Cluster:
    script = SCRIPTS / "features.py"
    return cluster(json.dumps(wants), script=script, CHAOS_MIN_MEMBERS=str(members))


def test_two_members_use_everything_at_once(cluster: MakeCluster) -> None:
    run = make(
        cluster,
        2,
        trainer={
            "max_epochs": 3,
            "val_check_interval": 0.5,
            "reload_dataloaders_every_n_epochs": 1,
            "gradient_clip_val": 0.5,
        },
        size=62,
        checkpoint={"monitor": "val_loss", "save_top_k": 2, "save_last": True},
        early={"monitor": "val_loss", "patience": 20},
        accumulate={"0": 1, "1": 2},
        csv=True,
        max_time_s=60.0,
    )
    run.up("a", "b")
    run.ended_well("a", "b")
    out = run.directory / "out" / "version_0"

    # every member sees the same
    for event, names in (
        ("validated", ("step", "epoch", "world")),
        ("epoch", ("epoch", "round", "step", "accumulate")),
        ("done", ("step", "epoch", "asked")),
    ):
        assert told(run, event, "a", *names) == told(run, event, "b", *names), event
    assert told(run, "epoch", "a", "step") == [(8,), (12,), (16,)]
    assert [step for (step,) in told(run, "validated", "a", "step")] == [4, 8, 10, 12, 14, 16]
    assert told(run, "done", "a", "asked") == [(3,)]
    metrics = [told(run, "epoch", node, "metrics")[-1][0] for node in ("a", "b")]
    same = ["val_loss", "train_loss_epoch", "rank", "chaos/members"]
    assert [metrics[0][k] for k in same] == [metrics[1][k] for k in same]
    assert metrics[0]["rank"] == 3 * 1  # three batches at rank one
    assert metrics[0]["chaos/members"] == 2

    # collectives: with all while training, one's own before and after
    together = run.told("together", "a")[0]
    assert together.fields == run.told("together", "b")[0].fields
    assert together["gathered"] == [[0, 7], [1, 7]]
    assert together["trees"] == [0, 1]
    assert together["first"] == {"node": "a", "list": [1, [2, 3]]}
    assert together["last"] == "b"
    assert (together["sum"], together["mean"]) == (3.0, 0.5)
    assert (together["all"], together["any"]) == (False, True)
    for node in ("a", "b"):
        assert {e["first"]["node"] for e in run.told("alone", node)} == {node}
        assert len(run.told("alone", node)) == 2

    # views are told to callbacks and the module, in one order
    assert told(run, "hook", "b", "of", "members") == [
        ("callback", ["a", "b"]),
        ("module", ["a", "b"]),
    ]

    # rank zero wrote, once
    assert [p.name for p in out.parent.iterdir()] == ["version_0"]
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    assert {"val_loss", "train_loss_step", "train_loss_epoch", "lr-SGD", "chaos/round_s"} <= set(
        rows[0]
    )
    checkpoints = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert len(checkpoints) == 3
    assert checkpoints[-1] == "last.ckpt"
    assert torch.load(out / "checkpoints" / "last.ckpt")["global_step"] in (14, 16)


@pytest.mark.parametrize(
    ("trainer", "wants", "steps", "validations"),
    [
        ({"limit_train_batches": 3, "max_epochs": 2}, {}, 6, [3, 6]),
        ({"limit_train_batches": 0.5, "max_epochs": 2}, {}, 8, [4, 8]),
        ({"val_check_interval": 2, "max_epochs": 1}, {}, 8, [2, 4, 6, 8]),
        (
            {"check_val_every_n_epoch": None, "val_check_interval": 6, "max_steps": 13},
            {},
            13,
            [6, 12],
        ),
        ({}, {"early": {"monitor": "constant", "patience": 1}}, 16, [8, 16]),
    ],
    ids=str,
)
def test_limits_hold_for_both(
    cluster: MakeCluster,
    trainer: dict[str, Any],
    wants: dict[str, Any],
    steps: int,
    validations: list[int],
) -> None:
    run = make(cluster, 2, trainer=trainer, **wants)
    run.start("a", "b")
    for node in ("a", "b"):
        assert run.wait_exit(node, 20.0) == 0, run.tail(node, 40)
        assert told(run, "done", node, "step") == [(steps,)]
        assert [s for (s,) in told(run, "validated", node, "step")] == validations


def test_time_is_up_for_all_at_once(cluster: MakeCluster) -> None:
    run = make(cluster, 2, trainer={"max_epochs": -1}, max_time_s=1.0)
    run.start("a", "b")
    run.ended_well("a", "b")
    assert told(run, "done", "a", "step") == told(run, "done", "b", "step")


def rows_of(run: Cluster) -> list[dict[str, str]]:
    path = run.directory / "out" / "version_0" / "metrics.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []


def test_members_that_come_and_go_keep_epochs_validation_and_files_in_step(
    cluster: MakeCluster,
) -> None:
    run = make(
        cluster,
        1,
        trainer={
            "max_epochs": 10_000,
            "num_sanity_val_steps": 0,
            "check_val_every_n_epoch": 2,
            "reload_dataloaders_every_n_epochs": 3,
        },
        size=62,
        round_s=0.005,
        checkpoint={"monitor": "val_loss", "every_n_train_steps": 5, "save_last": True},
        early={"monitor": "val_loss", "patience": 10_000},
        accumulate={"0": 1, "1": 2},
        plateau=True,
        csv=True,
    )
    run.start("a")
    run.wait_told("validated", "a")
    run.start("b")
    run.wait_members("a", "b")
    run.start("c")
    run.wait_members("a", "b", "c")
    run.wait_rounds(40)
    run.kill("a")
    run.wait_members("b", "c")
    run.wait_rounds(40)
    last = run.round
    run.finish("b", "c")

    # from the epoch on in which it came, a newcomer ends epochs and validates as the others do
    for event, names in (
        ("epoch", ("epoch", "round", "step", "accumulate")),
        ("validated", ("epoch", "step", "world")),
    ):
        for older, newcomer in (("a", "b"), ("b", "c")):
            theirs, its = (told(run, event, node, *names) for node in (older, newcomer))
            if older == "a":  # killed: what it had finished alone was done again without it
                known = run.told("epoch", "a")[-1]["step"]
                theirs = [what for what in theirs if what[names.index("step")] <= known]
            since = next(i for i, what in enumerate(theirs) if what == its[0])
            both = min(len(theirs) - since, len(its))  # the older one is killed before the end
            assert both > 1, event
            assert theirs[since:][:both] == its[:both], event
            assert newcomer == "b" or both == len(its), event
    assert {e["accumulate"] for e in run.told("epoch", "c")} == {2}
    assert {e["epoch"] % 2 for e in run.told("validated", "c")} == {1}

    # one file of metrics and one directory of checkpoints, begun by a, continued by b
    assert [p.name for p in (run.directory / "out").iterdir()] == ["version_0"]
    steps = [int(row["step"]) for row in rows_of(run)]
    assert steps[0] == 0
    assert steps[-1] > last - 20
    members = [float(row["chaos/members"]) for row in rows_of(run) if row["chaos/members"]]
    assert members[0] == 1
    assert 3.0 in members
    assert members[-1] == 2
    assert (run.directory / "out" / "version_0" / "checkpoints" / "last.ckpt").exists()


def test_a_run_resumed_from_a_checkpoint_takes_newcomers(
    cluster: MakeCluster, tmp_path: Path
) -> None:
    first = make(
        cluster,
        1,
        trainer={"max_epochs": 2},
        checkpoint={"dirpath": str(tmp_path / "kept"), "save_last": True, "monitor": "val_loss"},
    )
    first.start("a")
    first.ended_well("a")
    second = make(
        cluster,
        1,
        trainer={"max_epochs": 10_000},
        round_s=0.005,
        ckpt_path=str(tmp_path / "kept" / "last.ckpt"),
        checkpoint={"dirpath": str(tmp_path / "kept"), "save_last": True, "monitor": "val_loss"},
    )
    second.start("a")
    second.wait_told("epoch", "a")
    assert told(second, "epoch", "a", "epoch", "step")[0] == (2, 48)
    second.start("b")
    second.wait_members("a", "b")
    second.wait_rounds(20)
    second.finish("a", "b")
