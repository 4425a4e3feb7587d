"""Random faults where every side goes on alone: in the end there is one run."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection

import pytest

from lightning_chaos.protocol.islands import Islands
from lightning_chaos.protocol.values import Uid, View
from lightning_chaos.testing.simulator.case import Case, Fault
from lightning_chaos.testing.simulator.draw import draw
from lightning_chaos.testing.simulator.run import simulate

TROUBLES = (
    "kill",
    "kill_peer",
    "kill_worker",
    "restart",
    "pause_peer",
    "leave",
    "blip",
    "hang_worker",
)
MOMENTS = ("", "", "ViewNews", "Prepare", "Ack", "Commit")


def partitions(seed: int) -> Case:
    """The network breaks in two, once or twice, and somebody is in trouble when it heals."""
    rng = random.Random(f"partitions {seed}")
    names = "abcde"[: rng.choice((2, 3, 4, 4, 5))]
    faults = []
    for _ in range(rng.choice((1, 1, 2))):
        at, seconds = rng.uniform(1.5, 4.5), rng.uniform(1.6, 4.0)
        some = rng.sample(names, rng.randint(1, len(names) - 1))
        how = rng.choice(("cut", "stall"))
        for a, b in ((a, b) for a in some for b in names if b not in some):
            faults.append(Fault(at, how, a, b, seconds + rng.uniform(0.0, 0.3)))
        for _ in range(rng.choice((0, 1, 2))):
            a, b = rng.sample(names, 2)
            when, what = at + seconds + rng.uniform(-0.5, 1.0), rng.choice(TROUBLES)
            lasts, after = rng.choice((0.3, 0.7, 1.5)), rng.choice(MOMENTS)
            faults.append(Fault(when, what, a, b, lasts, after))
    faults.sort(key=lambda fault: fault.at)
    return Case(seed, names, tuple(faults), rng.random() < 0.3, rng.random() < 0.3, alone=True)


def test_whatever_splits_is_one_run_again_once_all_works() -> None:
    islands = 0
    for seed in range(40):
        outcome = simulate(partitions(seed))
        assert not outcome.problem, f"seed {seed}: {outcome.problem}"
        islands += any("an island of its own" in line for line in outcome.story)
    assert islands > 20  # else this shows nothing


def test_islands_that_go_by_epochs_instead_of_claims_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def later_stays(
        islands: Islands, mine: View, agreed: object, linked: Collection[Uid], samples: object
    ) -> View | None:
        for view in islands.known.values():
            if view.epoch > mine.epoch and any(uid in linked for uid in view.uids):
                return view
        return None

    monkeypatch.setattr(Islands, "better", later_stays)
    assert any(simulate(partitions(seed), story=False).problem for seed in range(20))


def test_other_faults_do_not_split_it_for_good() -> None:
    for seed in range(25):
        outcome = simulate(dataclasses.replace(draw(seed), alone=True), story=False)
        assert not outcome.problem, f"seed {seed}: {outcome.problem}"
