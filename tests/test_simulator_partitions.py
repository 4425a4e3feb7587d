"""The network breaks in two, both ways or one: at most one side goes on, and all meet again."""

from __future__ import annotations

import itertools

import pytest
from simulator_cases import partitions
from simulator_stage import Stage

from lightning_chaos.testing.simulator import simulate

HALVES = ("abc", "de"), ("de", "abc"), ("ab", "cde"), ("a", "bcde"), ("ad", "bce")
SILENCE_S = 6.0
"""Longer than it takes any side to go on that may: silence, and the wait for older ones."""


def test_whatever_splits_no_two_sides_go_on_and_all_are_one_again() -> None:
    for seed in range(80):
        outcome = simulate(partitions(seed, alone=False), story=False)
        assert not outcome.problem, f"seed {seed}: {outcome.problem}"


@pytest.mark.parametrize("kind", ["cut", "stall", "mute"])
@pytest.mark.parametrize(("some", "others"), HALVES)
def test_the_side_with_quorum_goes_on_and_the_other_says_why_it_waits(
    some: str, others: str, kind: str
) -> None:
    stage = Stage("abcde", founders=5)
    for a, b in itertools.product(some, others):
        stage.strike(kind, a, b)
    stage.run(SILENCE_S)
    before = {side: stage.rounds(side) for side in (some, others)}
    stage.run(3.0)
    more, less = sorted((some, others), key=len, reverse=True)
    went_on = [side for side in (some, others) if stage.rounds(side) != before[side]]
    assert went_on == [more]
    for name in less:
        wait = stage.node(name).peer._standing.wait
        assert wait is not None
        text = wait.text(stage.node(name).time(stage.world.clock.now))
        assert text.startswith(f"{len(less)} of 5 members reachable; waiting for quorum since ")
        assert text.endswith(" s; quorum='any' would go on alone")
    stage.heal()
    assert sorted(stage.by_age()) == list("abcde")
