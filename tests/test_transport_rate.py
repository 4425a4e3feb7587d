"""The rate of a link, learned from what it carries: time is a number here."""

from __future__ import annotations

import math
import random

import pytest

from lightning_chaos.errors import ConfigError
from lightning_chaos.transport.rate import PassiveRate, RateEstimate

MBIT = 125_000.0
STEP_S = 0.002


def feed(rate: PassiveRate, begin: float, seconds: float, bytes_per_s: float) -> float:
    """A transfer that arrives every two milliseconds; returns when it ends."""
    steps = round(seconds / STEP_S)
    rate.begin()
    for step in range(steps + 1):
        rate.received(begin + step * STEP_S, round(bytes_per_s * STEP_S))
    rate.end()
    return begin + steps * STEP_S


def known(rate: PassiveRate) -> RateEstimate:
    estimate = rate.estimate
    assert estimate is not None
    return estimate


def test_a_link_that_nothing_came_over_has_no_rate() -> None:
    rate = PassiveRate()
    assert rate.estimate is None
    rate.begin()
    rate.received(1.0, 1000)  # for how long it had been coming nobody knows
    assert rate.estimate is None


def test_a_long_transfer_tells_the_rate() -> None:
    rate = PassiveRate(rtt_s=0.02)
    end = feed(rate, 5.0, 2.0, 50 * MBIT)
    assert known(rate).bytes_per_s == pytest.approx(50 * MBIT)
    assert not known(rate).lower_bound
    assert end - 0.03 < known(rate).at <= end


@pytest.mark.parametrize(
    ("what", "rtt_s", "seconds", "bytes_per_s"),
    [
        ("a megabyte", 0.0, 2.0, 0.3e6),
        ("half a second", 0.0, 0.4, 10e6),
        ("twenty round trips", 0.1, 1.8, 10e6),
    ],
)
def test_less_than_that_is_a_lower_bound(
    what: str, rtt_s: float, seconds: float, bytes_per_s: float
) -> None:
    rate = PassiveRate(rtt_s)
    feed(rate, 0.0, seconds, bytes_per_s)
    assert known(rate).lower_bound, f"without {what}"
    feed(rate, seconds + STEP_S, 4 * seconds, bytes_per_s)
    assert not known(rate).lower_bound


def test_slow_start_is_left_out() -> None:
    rate = PassiveRate(rtt_s=0.05)
    now, window = 0.0, 15e3
    while window < 0.05 * 100 * MBIT:  # doubles every round trip until the link is full
        now = feed(rate, now, 0.05, window / 0.05)
        window *= 2
    feed(rate, now, 1.5, 100 * MBIT)
    assert known(rate).bytes_per_s == pytest.approx(100 * MBIT, rel=0.01)


def test_slow_start_after_a_silence_is_left_out_too() -> None:
    rate = PassiveRate(rtt_s=0.02)
    now = feed(rate, 0.0, 2.0, 80 * MBIT)
    for share in (0.1, 0.2, 0.4, 0.8):
        now = feed(rate, now + (1.0 if share == 0.1 else 0.0), 0.04, share * 80 * MBIT)
    feed(rate, now, 0.5, 80 * MBIT)
    assert known(rate).bytes_per_s == pytest.approx(80 * MBIT, rel=0.01)


def test_in_slow_start_the_last_whole_window_is_the_bound() -> None:
    rate = PassiveRate(rtt_s=0.05)
    now = 0.0
    for mbit in (5, 10, 20, 40):
        now = feed(rate, now, 0.06, mbit * MBIT)
    assert known(rate).lower_bound
    assert 20 * MBIT < known(rate).bytes_per_s <= 40 * MBIT


def test_pauses_between_transfers_are_not_time() -> None:
    rate = PassiveRate()
    now = 0.0
    for _ in range(40):
        now = feed(rate, now, 0.05, 30 * MBIT) + 0.15
    assert known(rate).bytes_per_s == pytest.approx(30 * MBIT, rel=0.01)


def test_bytes_that_nobody_waited_for_do_not_count() -> None:
    rate = PassiveRate()
    now = feed(rate, 0.0, 1.0, 30 * MBIT)
    before = known(rate).bytes_per_s
    rate.received(now + 0.001, 10_000_000)
    assert known(rate).bytes_per_s == before


def test_a_link_that_changes_is_followed() -> None:
    rate = PassiveRate()
    now = feed(rate, 0.0, 5.0, 200 * MBIT)
    now = feed(rate, now, 5.0, 40 * MBIT)
    assert known(rate).bytes_per_s == pytest.approx(40 * MBIT, rel=0.05)
    feed(rate, now, 5.0, 200 * MBIT)
    assert known(rate).bytes_per_s == pytest.approx(200 * MBIT, rel=0.05)


@pytest.mark.parametrize("mbit", [20, 100, 1000])
def test_arrivals_in_lumps_and_late_do_no_harm(mbit: int) -> None:
    rng, rate = random.Random(mbit), PassiveRate(rtt_s=0.01)
    rate.begin()
    due = now = 0.0
    while due < 3.0:
        size = rng.randint(1, 64) << 10
        due += size / (mbit * MBIT)
        now = max(now, due + rng.expovariate(1000))  # the receiver looks a millisecond late
        rate.received(now, size)
    assert known(rate).bytes_per_s == pytest.approx(mbit * MBIT, rel=0.05)


@pytest.mark.parametrize("rtt_s", [-1.0, math.nan, math.inf])
def test_a_round_trip_that_cannot_be_is_refused(rtt_s: float) -> None:
    with pytest.raises(ConfigError, match="round trip"):
        PassiveRate(rtt_s)


@pytest.mark.parametrize("bytes_per_s", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_cannot_be_is_refused(bytes_per_s: float) -> None:
    with pytest.raises(ConfigError, match="not a rate"):
        RateEstimate(bytes_per_s, lower_bound=False, at=0.0)
