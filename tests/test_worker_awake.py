"""A wait counts only as far as whoever waits was awake."""

from __future__ import annotations

from lightning_chaos.worker.awake import Awake


def test_time_in_which_the_process_did_not_run_is_held_against_nobody() -> None:
    awake = Awake(0.2)
    assert awake.seconds(10.0, 0.01) == 10.0
    assert awake.seconds(80.0, 69.8) == 80.0 - 69.8
    assert awake.seconds(90.0, 0.01) == 90.0 - 69.8
    assert awake.seconds(160.0, 69.8) == 160.0 - 2 * 69.8


def test_what_was_lost_of_the_last_wait_is_not_taken_from_the_next_one() -> None:
    awake = Awake(0.2)
    awake.seconds(80.0, 69.8)
    assert awake.seconds(0.1, 0.01) == 0.1
    assert awake.seconds(60.3, 0.01) == 60.3


def test_what_comes_while_it_sleeps_begins_the_wait_anew() -> None:
    awake = Awake(0.2)
    awake.seconds(10.0, 0.01)
    assert awake.seconds(0.1, 69.8) == 0.0
