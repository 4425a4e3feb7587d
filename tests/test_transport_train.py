"""A packet train: what the arrival of a few bytes says of a link."""

from __future__ import annotations

import math
import random

import pytest

from lightning_chaos.errors import ConfigError
from lightning_chaos.transport.train import TRAIN_BYTES, Arrival, rate_of_train

MBIT = 125_000.0
SEGMENT = 1448


def arrivals(
    mbit: float, *, rtt_s: float = 0.0, at_once: int = 0, late_s: float = 0.0, seed: int = 1
) -> list[Arrival]:
    """A train over a link of that rate.

    Args:
        mbit: rate.
        rtt_s: with one, TCP sends it in flights of 10, 20, … segments.
        at_once: bytes that a token bucket lets through first.
        late_s: the receiver looks that much late, in the mean.
    """
    rng = random.Random(seed)
    seen: list[Arrival] = []
    free_at = now = 0.0
    sent, flight = 0, 10 * SEGMENT if rtt_s else TRAIN_BYTES
    flight_at, flight_left = 0.0, flight
    while sent < TRAIN_BYTES:
        if not flight_left:
            flight_at, flight = flight_at + rtt_s, 2 * flight
            flight_left = flight
        size = min(SEGMENT, flight_left, TRAIN_BYTES - sent)
        free_at = max(free_at, flight_at) + (size / (mbit * MBIT) if sent >= at_once else 0.0)
        now = max(now, free_at + rng.expovariate(1 / late_s) if late_s else free_at)
        if seen and seen[-1].at == now:
            seen[-1] = Arrival(now, seen[-1].bytes + size)
        else:
            seen.append(Arrival(now, size))
        sent += size
        flight_left -= size
    return seen


def estimated(seen: list[Arrival], rtt_s: float = 0.0) -> float:
    estimate = rate_of_train(seen, rtt_s)
    assert estimate is not None
    assert estimate.lower_bound
    return estimate.bytes_per_s / MBIT


@pytest.mark.parametrize("mbit", [5, 20, 100, 1000])
def test_the_spacing_of_a_train_tells_the_rate(mbit: float) -> None:
    assert estimated(arrivals(mbit)) == pytest.approx(mbit, rel=0.01)


@pytest.mark.parametrize("mbit", [20, 100, 1000])
@pytest.mark.parametrize("rtt_s", [0.01, 0.02])
def test_pauses_between_tcps_flights_do_not_count(mbit: float, rtt_s: float) -> None:
    assert estimated(arrivals(mbit, rtt_s=rtt_s), rtt_s) == pytest.approx(mbit, rel=0.05)


def test_what_a_token_bucket_lets_through_does_not_count() -> None:
    assert estimated(arrivals(50, at_once=24 << 10)) == pytest.approx(50, rel=0.01)


def test_a_receiver_that_looks_late_sees_nearly_the_same() -> None:
    found = [estimated(arrivals(50, late_s=0.0002, seed=seed)) for seed in range(9)]
    assert sorted(found)[4] == pytest.approx(50, rel=0.15)


def test_bytes_that_came_all_at_once_say_nothing() -> None:
    assert rate_of_train([], 0.0) is None
    assert rate_of_train([Arrival(1.0, TRAIN_BYTES)], 0.0) is None
    assert rate_of_train([Arrival(1.0, 1000), Arrival(1.0, 63_000)], 0.0) is None
    assert rate_of_train([Arrival(1.0, 32_000), Arrival(1.00001, 32_000)], 0.0) is None


def test_what_comes_after_fifty_milliseconds_is_not_looked_at() -> None:
    seen = arrivals(5)
    assert seen[-1].at > 0.05
    changed = [a if a.at <= 0.05 else Arrival(a.at + 9.0, a.bytes) for a in seen]
    assert estimated(changed) == pytest.approx(5, rel=0.01)


@pytest.mark.parametrize("rtt_s", [-1.0, math.nan, math.inf])
def test_a_round_trip_that_cannot_be_is_refused(rtt_s: float) -> None:
    with pytest.raises(ConfigError, match="round trip"):
        rate_of_train(arrivals(50), rtt_s)


# ---- what receivers have seen ----------------------------------------------------------------

PAYLOAD = 1448 / 1514
"""Of what an Ethernet carries."""


def seen_by(microseconds: list[int], size: int = 2 * SEGMENT) -> list[Arrival]:
    """A train in pieces of that size, as stamped; the last one is what is left."""
    last = TRAIN_BYTES - size * (len(microseconds) - 1)
    sizes = [size] * (len(microseconds) - 1) + [last]
    return [Arrival(at / 1e6, some) for at, some in zip(microseconds, sizes, strict=True)]


# Links of 1000 Mbit/s between namespaces, told round trips of 1 and 20 ms.
_SHORT_TRIP = [0, 25, 49, 73, 98, 1074, 1099, 1118, 1143, 1167, 1192, 1215, 1239, 1265, 1288]
_SHORT_TRIP += [2168, 2190, 2198, 2230, 2255, 2264, 2302, 2306]
_LONG_TRIP = [0, 22, 46, 70, 94, 20092, 20130, 20138, 20156, 20180, 20204, 20229, 20254, 20277]
_LONG_TRIP += [20301, 40211, 40245, 40256, 40278, 40304, 40327, 40351, 40367]


@pytest.mark.parametrize(
    ("microseconds", "rtt_s"),
    [(_SHORT_TRIP, 0.00165), (_SHORT_TRIP, 0.02), (_SHORT_TRIP, 0.0), (_LONG_TRIP, 0.02404)],
)
def test_a_gigabit_is_seen_in_arrivals_that_were_recorded(
    microseconds: list[int], rtt_s: float
) -> None:
    assert estimated(seen_by(microseconds), rtt_s) == pytest.approx(1000 * PAYLOAD, rel=0.1)


def test_the_lateness_of_one_packet_in_each_flight_does_not_count() -> None:
    late = [at + 15 if at % 20_000 < 40 and at % 20_000 > 15 else at for at in _LONG_TRIP]
    assert late != _LONG_TRIP
    assert estimated(seen_by(late), 0.024) == pytest.approx(1000 * PAYLOAD, rel=0.1)


def test_packets_that_a_late_machine_passed_on_at_once_are_one_arrival() -> None:
    fine = arrivals(200)
    together = [
        Arrival(fine[k - k % 5 + 4 if k + 5 < len(fine) else -1].at, one.bytes)
        for k, one in enumerate(fine)
    ]
    assert len({some.at for some in together}) < len(fine) / 4
    assert estimated(together) == pytest.approx(200, rel=0.05)


def test_a_link_so_slow_that_little_comes_in_fifty_milliseconds_still_tells() -> None:
    assert estimated(arrivals(1), 0.0) == pytest.approx(1, rel=0.01)
    assert estimated(arrivals(1, rtt_s=0.02), 0.02) == pytest.approx(1, rel=0.1)


def test_with_a_long_round_trip_the_first_flight_is_enough() -> None:
    assert estimated(arrivals(1000, rtt_s=0.06), 0.06) == pytest.approx(1000, rel=0.01)
