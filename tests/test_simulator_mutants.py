"""The invariants bite: protocols that are broken on purpose are caught.

Each mutant takes one promise away, and some of a few hundred random runs shows it.  The same
seeds break nothing otherwise (``test_simulator_seeds``).
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import replace

import pytest
import simulator_mutants as mutants
from simulator_cases import data_links, partitions

from lightning_chaos.testing.simulator import Case, Fault, draw, draw_short, simulate

Mutant = Callable[[pytest.MonkeyPatch], None]
RUNS = 200
"""Cases in which a mutant is looked for: more than today's code needs, as seeds may shift."""


def cases(draw_one: Callable[[int], Case], first: int) -> list[Case]:
    """Of these seeds."""
    return [draw_one(seed) for seed in range(first, first + RUNS)]


DEAF = (("a", "c"), ("b", "a"), ("c", "b"), ("a", "e"))
IN_CIRCLES = Case(
    1,
    "abcde",
    (*(Fault(0.3, "mute", *way, seconds=0.9) for way in DEAF), Fault(0.3, "kill", "d")),
    founders=5,
    delay_s=0.01,
)
"""Each of a, b and c takes another for one with a link to d, and e gives a what is for d."""

TWICE = Case(
    1,
    "abcd",
    (
        Fault(1.55, "isolate", "b", "d", seconds=3.0, after="Prepare", count=4),
        Fault(5.47, "pause_peer", "b", "c", seconds=1.5, after="Prepare"),
    ),
)
"""Whoever proposes is cut off, twice: of three seeds one has a member that agreed to both."""

NAMED: dict[str, Mutant] = {
    "drop the quorum check": mutants.the_quorum_is_not_checked,
    "forget a promise": mutants.a_promise_is_forgotten,
    "commit without all ACKs of view'": mutants.not_all_members_of_the_new_view_have_agreed,
    "accept an older epoch": mutants.an_older_epoch_is_accepted,
    "reuse a ballot": mutants.a_ballot_is_reused,
    "count a silent member as dead": mutants.a_silent_member_counts_as_dead,
    "count a refusing member as dead": mutants.a_refusing_member_counts_as_dead,
    "ACK before the freeze": mutants.an_ack_comes_before_the_freeze,
    "commit a half round as whole": mutants.half_a_round_counts_as_whole,
    "free the last result early": mutants.the_last_result_is_freed_early,
    "let a learner contribute": mutants.a_learner_contributes,
    "take state from an older lineage": mutants.an_older_lineage_stays,
    "let a worker run without a permit": mutants.a_worker_runs_without_a_permit,
}
"""The twelve promises without which the protocol is not one (the sixth is two)."""

SHOWN: dict[Mutant, list[Case]] = {
    mutants.the_quorum_is_not_checked: cases(draw, 1),
    mutants.a_promise_is_forgotten: cases(draw_short, 11),
    mutants.not_all_members_of_the_new_view_have_agreed: cases(draw_short, 200),
    mutants.an_older_epoch_is_accepted: cases(draw, 640),
    mutants.a_ballot_is_reused: cases(draw, 1),
    mutants.a_silent_member_counts_as_dead: cases(draw, 20),
    mutants.a_refusing_member_counts_as_dead: cases(draw, 1),
    mutants.an_ack_comes_before_the_freeze: cases(draw_short, 30),
    mutants.half_a_round_counts_as_whole: cases(draw_short, 4),
    mutants.the_last_result_is_freed_early: cases(draw, 110),
    mutants.a_learner_contributes: cases(draw, 0),
    mutants.an_older_lineage_stays: cases(partitions, 0),
    mutants.a_worker_runs_without_a_permit: cases(draw, 3),
    mutants.half_is_enough: cases(draw, 13),
    mutants.permits_do_not_wait: cases(draw_short, 11),
    mutants.what_may_be_committed_is_forgotten: cases(draw, 415),
    mutants.older_agreements_are_not_told: [replace(TWICE, seed=seed) for seed in range(50)],
    mutants.a_frame_of_an_older_epoch_is_taken: cases(draw_short, 28),
    mutants.data_is_shared_out_too_early: cases(draw_short, 350),
    mutants.one_end_of_a_link_costs_the_other_its_seat: cases(draw_short, 30),
    mutants.a_link_is_taken_back_that_an_end_denies: cases(draw_short, 28),
    mutants.a_data_link_that_is_lost_is_forgotten: cases(data_links, 0),
    mutants.a_carried_message_has_no_end: [IN_CIRCLES],
}
"""Cases among which one shows it, near the first that does today."""


def is_caught(mutant: Mutant, patch: pytest.MonkeyPatch) -> bool:
    """Some run breaks a promise; an error of Python, as in the mutant itself, shows nothing."""
    mutant(patch)
    problems = (simulate(case, story=False).problem for case in SHOWN[mutant])
    first = next(filter(None, problems), "")
    assert not hasattr(builtins, first.partition(":")[0]), first
    return bool(first)


@pytest.mark.parametrize("name", NAMED)
def test_each_of_the_twelve_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_caught(NAMED[name], monkeypatch), NAMED[name].__doc__


@pytest.mark.parametrize(
    "mutant", [m for m in SHOWN if m not in NAMED.values()], ids=lambda mutant: mutant.__name__
)
def test_other_broken_protocols_are_caught_too(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_caught(mutant, monkeypatch), mutant.__doc__


def test_the_same_cases_break_nothing_otherwise() -> None:
    for found in SHOWN.values():
        for case in found[:3]:
            assert not simulate(case, story=False).problem
