"""Events that meet: leads that die one after another, and what happens during a failure.

Steered by hand in the simulator; the invariants are checked after every step on the way, and in
the end everybody trains together again.
"""

from __future__ import annotations

import pytest
from simulator_stage import Stage

from lightning_chaos.testing.simulator.run import settle

SEEDS = range(4)
QUICK_S = 1.5
"""Survivors who notice a death at once need no timeout; a timeout and a half is generous."""


def proposed(stage: Stage, lead: str) -> bool:
    """It has asked somebody to agree since the begin."""
    return any(kind == "Prepare" and sender == lead for kind, sender, _ in stage.sent)


def members(stage: Stage) -> str:
    return "".join(sorted(m.node for m in stage.world.invariants.newest().members))


def goes_on(stage: Stage, names: str) -> None:
    """These are the members, soon, and train."""
    since = stage.world.clock.now
    stage.until(lambda: members(stage) == names, f"a view of {names}")
    assert stage.world.clock.now - since < QUICK_S
    settle(stage.world)
    stage.heal()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_lead_dies_during_a_view_change_and_the_next_in_line_ends_it(seed: int) -> None:
    stage = Stage("abcde", seed=seed, founders=5)
    stage.strike("kill", "e")
    stage.until(lambda: proposed(stage, "a"), "the lead proposes")
    stage.strike("kill", "a")
    goes_on(stage, "bcd")


@pytest.mark.parametrize("seed", SEEDS)
def test_two_leads_die_one_after_the_other_during_one_view_change(seed: int) -> None:
    stage = Stage("abcdefg", seed=seed, founders=7)
    stage.strike("kill", "g")
    for lead in "ab":
        stage.until(lambda lead=lead: proposed(stage, lead), f"{lead} proposes")  # type: ignore[misc]
        stage.strike("kill", lead)
    goes_on(stage, "cdef")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_next_lead_dies_just_after_its_first_commit(seed: int) -> None:
    stage = Stage("abcdefg", seed=seed, founders=7)
    for lead in "ab":
        stage.strike("kill", lead)
        stage.until(lambda lead=lead: lead not in members(stage), f"a view without {lead}")  # type: ignore[misc]
    goes_on(stage, "cdefg")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lead_stopped_in_a_view_change_is_replaced_and_so_is_the_next(seed: int) -> None:
    """Nobody knows whether they are dead: each in line waits a while for the one before."""
    stage = Stage("abcdefg", seed=seed, founders=7)
    stage.strike("kill", "g")
    for lead in "ab":
        stage.until(lambda lead=lead: proposed(stage, lead), f"{lead} proposes")  # type: ignore[misc]
        stage.strike("pause_peer", lead, seconds=9.0)
    stage.until(lambda: members(stage) == "cdef", "the others go on")
    stage.until(lambda: members(stage) == "abcdef", "both are back")
    stage.heal()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_join_a_leave_a_lost_link_and_a_death_in_one_moment(seed: int) -> None:
    stage = Stage("abcdef", seed=seed, founders=5)
    stage.strike("restart", "f")  # it comes
    stage.strike("leave", "b")
    stage.strike("cut", "a", "c")
    stage.strike("kill", "e")
    stage.until(lambda: members(stage) == "acdf", "a view without b and e, with f")
    missing = stage.world.invariants.newest().missing
    assert ("a/1", "c/3") in missing
    stage.heal()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("kind", "ends", "left"),
    [
        ("restart", "f", "bcdef"),
        ("leave", "c", "bde"),
        ("cut", "bc", "bcde"),
        ("blip_data", "bc", "bcde"),
        ("kill_peer", "c", "bcde"),
        ("kill", "c", "bde"),
    ],
)
def test_something_else_happens_while_the_death_of_the_lead_is_dealt_with(
    seed: int, kind: str, ends: str, left: str
) -> None:
    stage = Stage("abcdef", seed=seed, founders=5)
    stage.strike("kill", "a")
    stage.until(lambda: any(proposed(stage, name) for name in "bcde"), "another proposes")
    stage.strike(kind, *ends, seconds=1.5)
    stage.until(lambda: members(stage) == left, f"a view of {left}")
    stage.heal()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("who", ["donor", "newcomer"])
def test_one_end_of_a_pull_dies_while_it_is_under_way(seed: int, who: str) -> None:
    stage = Stage("abcd", seed=seed, founders=3)
    pulls = len(stage.sent)
    stage.strike("restart", "d")
    stage.until(
        lambda: any(kind == "Pull" for kind, *_ in stage.sent[pulls:]), "d pulls from somebody"
    )
    donor = next(sender for kind, sender, _ in stage.sent[pulls:] if kind == "Pull")
    gone = donor if who == "donor" else "d"
    stage.strike("kill", gone)
    goes_on(stage, "".join(name for name in "abcd" if name != gone))
