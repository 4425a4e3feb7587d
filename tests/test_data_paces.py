"""Who is slow, and who takes how much of a round."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.data.paces import ROUNDS, SLOW_LEAST_S, Change, Paces, SlowMode

FULL = 16


def play(
    paces: Paces,
    speeds: Mapping[str, float],
    rounds: int,
    *,
    overhead_s: float = 0.0,
) -> list[Change]:
    """Rounds of members that need so many seconds a sample; what changed in them."""
    changes: list[Change] = []
    for _ in range(rounds):
        shares = paces.shares(list(speeds), FULL)
        seconds = [overhead_s + speed * n for speed, n in zip(speeds.values(), shares, strict=True)]
        changes += paces.note(list(speeds), shares, seconds, FULL)
    return changes


def test_a_member_is_slow_after_three_rounds_and_told_once() -> None:
    paces = Paces("keep")
    speeds = {"a": 0.01, "b": 0.1, "c": 0.01}
    assert play(paces, speeds, ROUNDS - 1) == []
    (change,) = play(paces, speeds, 20)
    assert (change.uid, change.slow, change.turned, change.share) == ("b", True, True, FULL)
    assert (change.seconds, change.usual) == (pytest.approx(1.6), pytest.approx(0.16))
    assert paces.slow == ("b",)
    assert paces.shares(("a", "b", "c"), FULL) == (FULL,) * 3


def test_of_two_the_one_that_takes_longer_is_slow() -> None:
    paces = Paces("keep")
    play(paces, {"a": 0.1, "b": 0.01}, ROUNDS)
    assert paces.slow == ("a",)


def test_one_long_round_makes_nobody_slow() -> None:
    paces = Paces("share")
    play(paces, {"a": 0.01, "b": 0.01}, 5)
    assert play(paces, {"a": 0.01, "b": 5.0}, 1) == []
    assert play(paces, {"a": 0.01, "b": 0.01}, 5) == []


def test_milliseconds_make_nobody_slow() -> None:
    paces = Paces("keep")
    assert play(paces, {"a": 1e-5, "b": SLOW_LEAST_S / FULL}, 10) == []


def test_who_is_slow_stays_so_until_it_is_nearly_as_fast_as_usual() -> None:
    paces = Paces("keep")
    play(paces, {"a": 0.01, "b": 0.1}, 5)
    assert play(paces, {"a": 0.01, "b": 0.02}, 10) == []
    (change,) = play(paces, {"a": 0.01, "b": 0.011}, 10)
    assert (change.slow, change.turned) == (False, True)


def test_a_share_is_what_its_member_can_do_in_the_usual_time_and_grows_again() -> None:
    paces = Paces("share")
    play(paces, {"a": 0.01, "b": 0.05, "c": 0.01}, ROUNDS)
    assert paces.shares(("a", "b", "c"), FULL) == (16, 3, 16)
    assert play(paces, {"a": 0.01, "b": 0.05, "c": 0.01}, 10) == []
    change = play(paces, {"a": 0.01, "b": 0.01, "c": 0.01}, 10)[-1]
    assert (change.slow, change.share) == (False, FULL)
    assert paces.shares(("a", "b", "c"), FULL) == (16, 16, 16)


def test_what_a_round_costs_however_few_its_samples_is_corrected_for() -> None:
    paces = Paces("share")
    play(paces, {"a": 0.01, "b": 0.05}, 20, overhead_s=0.04)
    _, share = paces.shares(("a", "b"), FULL)
    assert 2 <= share <= 4  # 0.04 + 16 * 0.01 s buy 3.2 samples
    play(paces, {"a": 0.01, "b": 0.01}, 20, overhead_s=0.04)
    assert paces.slow == ()


def test_a_newcomer_takes_a_full_share_and_a_leaver_is_forgotten() -> None:
    paces = Paces("share")
    play(paces, {"a": 0.01, "b": 0.1}, ROUNDS)
    assert paces.shares(("a", "b", "c"), FULL) == (16, 2, 16)
    play(paces, {"a": 0.01, "c": 0.01}, 1)
    assert paces.slow == ()
    assert paces.shares(("a", "b", "c"), FULL) == (16, 16, 16)


def test_when_only_slow_ones_are_left_nobody_is_slow() -> None:
    paces = Paces("share")
    play(paces, {"a": 0.01, "b": 0.1, "c": 0.1}, 1)
    play(paces, {"a": 0.01, "b": 0.1}, 5)
    assert paces.slow == ("b",)
    play(paces, {"b": 0.1}, ROUNDS)
    assert paces.slow == ()
    assert paces.shares(("b",), FULL) == (FULL,)


def test_rounds_at_the_end_of_an_epoch_say_nothing() -> None:
    paces = Paces("keep")
    for _ in range(10):
        assert paces.note(("a", "b"), (5, 4), (0.1, 10.0), FULL) == []


@given(
    mode=st.sampled_from(("keep", "share", "standby")),
    rounds=st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.floats(0.0, 10.0), min_size=1), max_size=30
    ),
)
def test_shares_are_bounded_and_a_newcomer_decides_as_the_others_do(
    mode: SlowMode, rounds: list[dict[str, float]]
) -> None:
    ours, theirs = Paces(mode), Paces(mode)
    for seconds in rounds:
        uids = sorted(seconds)
        shares = ours.shares(uids, FULL)
        assert theirs.shares(uids, FULL) == shares
        assert all(2 <= share <= FULL for share in shares)
        told = [seconds[uid] for uid in uids]
        changes = ours.note(uids, shares, told, FULL)
        assert theirs.note(uids, shares, told, FULL) == changes
        newcomer = Paces(mode)
        newcomer.load_state_dict(theirs.state_dict())
        theirs = newcomer
