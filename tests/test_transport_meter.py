"""The rate of a link from transfers and trains together: time is a number here."""

from __future__ import annotations

import pytest

from lightning_chaos.protocol.readings import Reading, Trust
from lightning_chaos.transport.meter import LEAST_TRAIN_BYTES, LinkMeter
from lightning_chaos.transport.train import TRAIN_BYTES, TRAIN_S

MBIT = 125_000.0
STEP_S = 0.002
PIECE_BYTES = 1500


class Bench:
    """A meter, and what comes over its link."""

    def __init__(self, rtt_s: float = 0.0) -> None:
        self.now = 100.0
        self.meter = LinkMeter(lambda: self.now)
        self.meter.know_rtt(rtt_s)

    def transfer(self, bytes_per_s: float, seconds: float = 2.0) -> None:
        """A payload that arrives every two milliseconds."""
        self.meter.begin()
        for _ in range(round(seconds / STEP_S) + 1):
            self.meter.received(round(bytes_per_s * STEP_S))
            self.now += STEP_S
        self.meter.end()

    def train(self, bytes_per_s: float, *, after_s: float = 10.0) -> None:
        """The next train, packet by packet, a round trip after it was asked for."""
        self.now += after_s
        left = self.meter.ask_train()
        self.now += 0.001
        self.meter.begin_train()
        self.meter.begin()  # as of any payload of that length
        while left > 0:
            piece = min(left, PIECE_BYTES)
            self.now += piece / bytes_per_s
            self.meter.received(piece)
            left -= piece
        self.meter.end()

    @property
    def reading(self) -> Reading:
        reading = self.meter.reading()
        assert reading is not None
        return reading


def test_of_a_link_that_nothing_came_over_nothing_is_known() -> None:
    bench = Bench()
    assert bench.meter.reading() is None
    assert bench.meter.silent_s == float("inf")


def test_a_long_transfer_is_a_measurement_and_grows_old() -> None:
    bench = Bench()
    bench.transfer(50 * MBIT)
    bench.now += 30
    assert bench.reading.bytes_per_s == pytest.approx(50 * MBIT)
    assert bench.reading.trust is Trust.MEASURED
    assert bench.reading.age_s == pytest.approx(30, abs=0.1)


def test_on_a_long_way_the_same_transfer_is_a_lower_bound_only() -> None:
    bench = Bench(rtt_s=0.2)
    bench.transfer(50 * MBIT)
    assert bench.reading.trust is Trust.AT_LEAST
    bench.transfer(50 * MBIT, 4.0)
    assert bench.reading.trust is Trust.MEASURED


def test_where_transfers_are_never_long_enough_a_train_is_due_all_the_same() -> None:
    bench = Bench(rtt_s=0.2)
    for _ in range(30):
        bench.transfer(50 * MBIT, seconds=0.1)
        bench.now += 1.0
    assert bench.reading.trust is Trust.AT_LEAST
    assert bench.meter.silent_s > 30
    bench.train(80 * MBIT)
    bench.transfer(50 * MBIT, seconds=0.1)
    assert bench.reading.trust is Trust.TRAIN
    assert bench.reading.bytes_per_s == pytest.approx(80 * MBIT)
    assert bench.meter.silent_s < 1
    bench.transfer(50 * MBIT, seconds=8.0)
    assert bench.reading.trust is Trust.MEASURED
    assert bench.meter.silent_s < 1


def test_without_a_transfer_trains_are_a_guess() -> None:
    bench = Bench()
    bench.train(50 * MBIT)
    assert bench.reading.bytes_per_s == pytest.approx(50 * MBIT)
    assert bench.reading.trust is Trust.TRAIN


def test_one_train_that_is_far_off_changes_little() -> None:
    bench = Bench()
    for rate in (50, 500, 50):
        bench.train(rate * MBIT)
    assert bench.reading.bytes_per_s == pytest.approx(50 * MBIT)


def test_trains_that_agree_with_a_transfer_confirm_it() -> None:
    bench = Bench()
    bench.transfer(20 * MBIT)
    for rate in (25, 16, 20):
        bench.train(rate * MBIT)
    assert bench.reading.bytes_per_s == pytest.approx(20 * MBIT)
    assert bench.reading.trust is Trust.MEASURED
    assert bench.reading.age_s == pytest.approx(0, abs=0.1)


def test_trains_that_have_agreed_tell_when_the_link_has_changed() -> None:
    bench = Bench()
    bench.transfer(20 * MBIT)
    for rate in (20, 20, 20, 200):
        bench.train(rate * MBIT)
    assert bench.reading.bytes_per_s == pytest.approx(20 * MBIT)
    bench.train(200 * MBIT)
    assert bench.reading.bytes_per_s == pytest.approx(200 * MBIT)
    assert bench.reading.trust is Trust.MEASURED


def test_a_link_that_trains_have_found_fast_again_is_never_called_slow_by_what_it_was() -> None:
    bench = Bench()
    bench.transfer(20 * MBIT)
    for rate in (20, 20, 20, 200, 200):
        bench.train(rate * MBIT)
    for _ in range(20):
        bench.transfer(200 * MBIT, seconds=0.1)
        assert bench.reading.bytes_per_s == pytest.approx(200 * MBIT, rel=0.02)
    assert bench.reading.trust is Trust.MEASURED


def test_of_trains_before_the_last_transfer_nothing_is_held_against_it() -> None:
    bench = Bench()
    bench.transfer(20 * MBIT)
    for _ in range(3):
        bench.train(20 * MBIT)
    bench.transfer(200 * MBIT, seconds=10.0)
    bench.train(20 * MBIT)  # one that is far off
    assert bench.reading.bytes_per_s == pytest.approx(200 * MBIT, rel=0.05)
    assert bench.reading.trust is Trust.MEASURED


def test_a_train_that_says_less_than_was_seen_is_wrong() -> None:
    bench = Bench(rtt_s=0.2)
    bench.transfer(50 * MBIT)
    bench.train(10 * MBIT)
    assert bench.reading.trust is Trust.AT_LEAST
    assert bench.reading.bytes_per_s == pytest.approx(50 * MBIT)


def test_trains_that_never_agreed_tell_nothing_and_the_transfer_grows_old() -> None:
    bench = Bench()
    bench.transfer(20 * MBIT)
    for _ in range(6):
        bench.train(500 * MBIT)
    assert bench.reading.bytes_per_s == pytest.approx(20 * MBIT)
    assert bench.reading.age_s == pytest.approx(60, abs=1)


def test_a_train_that_comes_all_at_once_is_a_lower_bound() -> None:
    bench = Bench()
    bench.transfer(20 * MBIT)
    for _ in range(3):
        bench.train(20 * MBIT)
    for _ in range(2):
        bench.train(1e12)
    assert bench.reading.trust is Trust.AT_LEAST
    assert bench.reading.bytes_per_s > 40 * MBIT


def test_a_transfer_says_more_than_the_trains_before_it() -> None:
    bench = Bench()
    for _ in range(3):
        bench.train(500 * MBIT)
    bench.transfer(100 * MBIT)
    assert bench.reading.bytes_per_s == pytest.approx(100 * MBIT)
    assert bench.reading.trust is Trust.MEASURED


def test_what_had_to_wait_unread_tells_nothing() -> None:
    bench = Bench()
    bench.meter.ask_train()
    bench.meter.left_unread()
    bench.meter.begin_train()
    for _ in range(40):
        bench.meter.received(PIECE_BYTES)
        bench.now += 1e-4
    bench.meter.end()
    assert bench.meter.reading() is None


def test_a_train_that_nobody_asked_for_tells_nothing() -> None:
    bench = Bench()
    bench.meter.begin_train()
    bench.meter.received(TRAIN_BYTES)
    bench.meter.end()
    assert bench.meter.reading() is None


def test_a_train_that_broke_off_does_not_hide_the_next_transfer() -> None:
    bench = Bench()
    bench.meter.ask_train()
    bench.meter.begin_train()
    bench.meter.end()
    bench.transfer(50 * MBIT)
    assert bench.reading.trust is Trust.MEASURED


@pytest.mark.parametrize("mbit", [0.5, 4, 1000])
def test_a_train_takes_no_longer_than_it_may(mbit: float) -> None:
    bench = Bench()
    bench.transfer(mbit * MBIT, seconds=20.0)
    length = bench.meter.ask_train()
    assert LEAST_TRAIN_BYTES <= length <= TRAIN_BYTES
    assert length <= max(LEAST_TRAIN_BYTES, 1.01 * mbit * MBIT * TRAIN_S)


def test_a_link_on_which_a_train_takes_a_second_is_slow_and_not_too_fast_to_see() -> None:
    bench = Bench()
    bench.train(70e3)
    assert bench.reading.bytes_per_s == pytest.approx(70e3, rel=0.05)
    assert bench.reading.trust is Trust.TRAIN


def test_a_link_that_has_become_very_slow_is_no_longer_believed_to_be_fast() -> None:
    bench = Bench()
    bench.transfer(80 * MBIT)
    for rate in [80 * MBIT] * 3 + [50e3] * 3:
        bench.train(rate)
    assert bench.reading.bytes_per_s == pytest.approx(50e3, rel=0.1)
