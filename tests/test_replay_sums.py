"""Sums that a replay makes are those that members made together, bit for bit."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from collective_failures import random_links
from collective_network import Network, program, view_of

from lightning_chaos.collective.roots import Floats
from lightning_chaos.monitor.runlog import RunLog, read_log
from lightning_chaos.planning.graph import Graph, Link
from lightning_chaos.planning.reduce import finer_and_finer
from lightning_chaos.replay.book import view_told
from lightning_chaos.replay.sums import Sums
from lightning_chaos.worker.chronicle import Chronicle


def replayed(network: Network, number: int) -> tuple[bytes, bytes]:
    """Result of one of the operations of a run, and what a replay makes of its members' parts."""
    node = next(iter(network.nodes.values()))
    finished, result = list(node.finished.values())[number]
    step = next(step for step in node.steps if step.op == finished.op)
    if step.floats is None:
        return b"", result
    plan = finished.view.plan
    mean = np.empty(step.floats, np.float32)
    sums = Sums(finished.view.uids, plan, step.buckets or ((0, 4 * step.floats),), mean)
    memory = [np.empty(step.floats, np.float32) for _ in range(2)]
    for uid, weight in zip(finished.view.uids, finished.weights, strict=True):
        part = memory[0]
        part[:] = _vector(step.vector(uid))
        sums.add(uid, part, weight)
        memory.reverse()  # a part is overwritten by the one after the next
    return mean.tobytes(), result


def _vector(vector: Floats | None) -> Floats:
    assert vector is not None
    return vector


@pytest.mark.parametrize("links", [True, False])
def test_a_replay_adds_up_along_the_trees_of_the_run(links: bool) -> None:
    for seed in range(60):
        rng = random.Random(70_000 + seed)
        names, missing = random_links(rng)
        network = Network(names, rng, program(rng, 3))
        network.news[1] = (view_of(1, names, missing=() if links else missing), None)
        for node in network.nodes.values():
            network.install(node, 1)
        network.run()
        network.check()
        for number in range(len(network.steps)):
            mine, theirs = replayed(network, number)
            assert mine == theirs


def test_a_replay_adds_up_along_trees_for_unlike_links_too() -> None:
    """Their pieces are many, rooted on both sides of slow links, some of a tree more than once."""
    for seed in range(60):
        rng = random.Random(80_000 + seed)
        names = "abcdef"[: rng.randint(2, 6)]
        view = view_of(1, names)
        near = {uid: rng.choice([10.0, 100.0]) for uid in view.uids}
        ways = {
            (a, b): Link(min(near[a], near[b]), 1) for a, b in itertools.permutations(view.uids, 2)
        }
        made = finer_and_finer(Graph(view.uids, ways))
        plan = next(itertools.islice(made, rng.randint(0, 3), None)).plan
        network = Network(names, rng, program(rng, 3))
        network.news[1] = (msgspec.structs.replace(view, plan=plan), None)
        for node in network.nodes.values():
            network.install(node, 1)
        network.run()
        network.check()
        for number in range(len(network.steps)):
            mine, theirs = replayed(network, number)
            assert mine == theirs


def test_the_run_log_tells_by_which_plan_a_view_adds_up(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "b.jsonl", "b")
    views = [view_of(1, "abc"), view_of(2, "abc", missing=("ac",))]
    for view in views:
        Chronicle(log).in_force(view, "why", 0)
    log.close()
    whole, without = read_log(tmp_path)
    assert whole["missing"] == []
    assert without["missing"] == [["a", "c"]]
    for view, event in zip(views, (whole, without), strict=True):
        told = view_told(event, "run")
        assert (told.epoch, told.uids, told.plan) == (view.epoch, view.uids, view.plan)


def test_a_plan_for_others_is_refused() -> None:
    plan = view_of(1, "abc").plan
    with pytest.raises(ValueError, match="for 3 members, here are 2"):
        Sums(("a/1", "b/1"), plan, ((0, 4),), np.empty(1, np.float32))
