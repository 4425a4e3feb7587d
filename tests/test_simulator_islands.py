"""Random faults where every side goes on alone: in the end there is one run."""

from __future__ import annotations

import dataclasses

from lightning_chaos.testing.simulator.draw import draw
from lightning_chaos.testing.simulator.run import simulate


def test_whatever_splits_is_one_run_again_once_all_works() -> None:
    for seed in range(40):
        outcome = simulate(dataclasses.replace(draw(seed), alone=True), story=False)
        assert not outcome.problem, f"seed {seed}: {outcome.problem}"
