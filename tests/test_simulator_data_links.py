"""Data links die while control links live, one way too; and both, for all at once."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from simulator_cases import data_links
from simulator_stage import Stage

from lightning_chaos.testing.simulator import Fault, simulate
from lightning_chaos.testing.simulator.faults import set_up

HINDRANCES = ("pause_peer", "blip", "isolate", "kill_peer")


def missing(stage: Stage) -> list[str]:
    pairs = stage.world.invariants.newest().missing
    return ["".join(stage.world.nodes[uid].name for uid in pair) for pair in pairs]


def seats(stage: Stage) -> set[str]:
    """Identities of the members: who comes back as a newcomer has another one."""
    return set(stage.world.invariants.newest().uids)


def test_whatever_befalls_data_links_no_promise_is_broken() -> None:
    for seed in range(60):
        outcome = simulate(data_links(seed), story=False)
        assert not outcome.problem, f"{data_links(seed)}: {outcome.problem}"


def test_a_link_whose_data_alone_are_lost_is_given_up_once_and_taken_back_when_it_works() -> None:
    stage = Stage("abcd", founders=4)
    before = seats(stage)
    stage.strike("cut_data", "b", "c")
    stage.until(lambda: missing(stage) == ["bc"], "the link is given up")
    given_up = stage.epoch("a")
    stage.run(30.0)
    assert stage.epoch("a") == given_up  # nobody tries it by counting on it
    stage.world.heal()
    stage.until(lambda: missing(stage) == [], "the link is taken back")
    stage.heal()
    assert seats(stage) == before


def test_data_that_get_lost_one_way_cost_no_more_than_a_seat_for_a_while() -> None:
    stage = Stage("abcd", founders=4)
    stage.strike("mute_data", "b", "c")
    stage.until(lambda: len(seats(stage)) == 3, "somebody is left out: it seems to hang")
    stage.until(lambda: len(seats(stage)) == 4, "it is a member again")
    assert missing(stage) == ["bc"]
    stage.heal()
    assert missing(stage) == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("names", ["abc", "abcd"])
def test_all_links_are_lost_and_come_back_one_by_one_and_the_same_members_go_on(
    names: str, seed: int
) -> None:
    stage = Stage(names, seed=seed, founders=len(names))
    before, rng = seats(stage), random.Random(seed)
    for a, b in combinations(names, 2):
        stage.strike("cut", a, b, 4.0 + rng.uniform(0.0, 1.0))
    stage.run(3.5)
    assert all("waiting for quorum" in stage.node(name).peer.waiting for name in names)
    stage.run(1.5)
    stage.heal()
    assert seats(stage) == before


@pytest.mark.parametrize("seed", range(12))
def test_of_three_parts_none_a_quorum_one_goes_on_with_the_ACKs_of_all(seed: int) -> None:
    """Those who are left out have a voice, and nobody of another part goes on beside it."""
    stage = Stage("abcde", seed=seed, founders=5)
    rng = random.Random(seed)
    stage.strike("kill", "e")
    for a, b in ("ab", "ac", "ad", "bd", "cd"):
        stage.strike("cut_data", a, b)
    kind, moment = rng.choice(HINDRANCES), rng.choice(("Prepare", "Ack", "Commit"))
    set_up(stage.world, Fault(0.0, kind, *rng.choice(("ab", "ba")), 2.0, after=moment))
    stage.until(lambda: len(seats(stage)) < 4, "one part goes on")
    stage.heal()
    assert {uid[0] for uid in seats(stage)} == set("abcde")
