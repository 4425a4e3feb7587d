"""When a donor's next answers are due: a queue of one server, seen from a round trip away."""

from __future__ import annotations

import pytest

from lightning_chaos.replication.pace import Pace

RTT_S, SIZE = 0.1, 1_000_000
BELIEVED = 40e6


def asked(*times: float) -> Pace:
    pace = Pace(RTT_S)
    for now_s in times:
        pace.asked(now_s)
    return pace


def test_the_first_answer_shows_the_rate_however_little_was_asked_for() -> None:
    pace = asked(0.0)
    assert pace.bytes_per_s is None
    pace.answered(SIZE, 0.1, 0.2)  # a round trip, then a tenth of a second of bytes
    assert pace.bytes_per_s == pytest.approx(10e6)


def test_waiting_for_requests_does_not_count_and_waiting_for_the_donor_does() -> None:
    pace = asked(0.0, 0.0)
    pace.answered(SIZE, 0.1, 0.2)
    pace.answered(SIZE, 0.25, 0.3)  # it began late, though it had been asked
    assert pace.bytes_per_s == pytest.approx(10e6)
    pace.asked(5.0)
    pace.answered(SIZE, 5.1, 5.2)
    assert pace.bytes_per_s == pytest.approx(10e6)


def test_a_donor_that_becomes_slow_is_seen_to_be() -> None:
    pace = asked(0.0, 0.0, 0.0)
    for now_s in (0.2, 0.3, 1.3):
        pace.answered(SIZE, now_s - 0.1, now_s)
    assert pace.bytes_per_s == pytest.approx(1e6, rel=0.05)


def test_answers_are_due_one_after_another_and_new_ones_a_round_trip_from_now() -> None:
    pace = Pace(RTT_S)
    assert pace.due_s(2, SIZE, 3.0, BELIEVED) == pytest.approx(3.0 + RTT_S + 2 * 0.025)
    pace = asked(0.0, 0.0, 0.0)
    pace.answered(SIZE, 0.1, 0.2)
    assert pace.due_s(1, SIZE, 0.2, BELIEVED) == pytest.approx(0.3)
    assert pace.due_s(2, SIZE, 0.2, BELIEVED) == pytest.approx(0.4)
    pace.answered(SIZE, 0.2, 0.3)
    assert pace.due_s(2, SIZE, 0.39, BELIEVED) == pytest.approx(0.39 + RTT_S + 0.1)


def test_a_silent_donor_is_expected_to_be_so_for_as_long_again() -> None:
    pace = asked(0.0, 0.0, 0.0)
    pace.answered(SIZE, 0.1, 0.2)
    assert pace.due_s(1, SIZE, 1.2, BELIEVED) == pytest.approx(2.2)
    assert pace.due_s(2, SIZE, 1.2, BELIEVED) == pytest.approx(2.3)


def test_before_the_first_answer_silence_speaks_against_the_rate_believed() -> None:
    pace = asked(0.0, 0.0)
    assert pace.due_s(2, SIZE, 0.1, BELIEVED) == pytest.approx(0.15)
    assert pace.due_s(2, SIZE, 0.5, BELIEVED) == pytest.approx(0.5 + 2 * 0.4)
