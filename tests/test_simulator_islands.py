"""Random faults where every side goes on alone: in the end there is one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import pytest
from simulator_cases import partitions

from lightning_chaos.protocol.islands import Islands
from lightning_chaos.protocol.values import Uid, View
from lightning_chaos.testing.simulator.draw import draw
from lightning_chaos.testing.simulator.run import simulate


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
