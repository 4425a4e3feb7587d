"""How fast a link is that was never used: a short train of bytes, seen from how it arrives.

A sender gives :data:`TRAIN_BYTES` to its connection at once.  At the narrowest place of the way
they queue, and behind it they come one after another at its rate (*packet dispersion*: Dovrolis,
Ramanathan, Moore, *What do packet dispersion techniques measure?*, 2001).

Three things hide that rate.  TCP sends a new connection's first bytes in flights of a few packets,
a round trip apart: the pause before a flight tells of the round trip.  A way that has been idle
may let the first bytes through at once (a token bucket), so they tell of its depth.  And a machine
on the way that wakes up late passes on at once what came meanwhile.  So the spacing is taken over
stretches of :data:`_STRETCH_BYTES` within a flight, and it is the median of them that counts.

The outcome is a first guess.  Cross traffic and a sender that paces itself (BBR) make it too low;
a bucket that holds more than the train, or arrivals that are known too late (no stamps of the
kernel's, a network card that gathers packets), make it too high.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightning_chaos.errors import ConfigError
from lightning_chaos.transport.rate import RateEstimate

TRAIN_BYTES = 64 << 10
"""Length of a train; at 10 Mbit/s it takes 50 ms."""
TRAIN_S = 0.05
"""What comes later than that after the first bytes is not looked at, seconds."""
TRAIN_WRITE_BYTES = 2 * 1448
"""A sender writes so much at once, and each apart: two packets of Ethernet.  What TCP sends as one
may come as one, and shows no spacing."""
_STRETCH_BYTES = 10_000
"""A spacing is taken over so many bytes, nearly all that the first flight has to tell."""
_LEAST_BYTES = 4 << 10
"""A spacing that fewer bytes tell of is chance."""
_MOST_BYTES_PER_S = 250e6
"""A spacing that says more is that of reads, not of arrivals."""
_FLIGHT_BYTES = 10 * 1200
"""TCP sends no flight shorter than that, ten segments (RFC 6928), while it has more to send."""
_PAUSE_TRIPS = 0.25
"""A pause of that part of a round trip, after so long a flight, was waiting for the next one."""
_PAUSED_ARRIVALS = 3
"""Of so many arrivals and as long as all of them, too: a busy machine takes the round trip for
several times of what it is."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Some bytes of a train."""

    at: float
    """When they were there, seconds."""
    bytes: int


Flight = list[Arrival]


def rate_of_train(arrivals: Sequence[Arrival], rtt_s: float) -> RateEstimate | None:
    """What the arrival of a train says of the link; a lower bound, for one train says little.

    Args:
        arrivals: in the order of the bytes, at least as fine as the receiver could see.
        rtt_s: round trip of the link, seconds; 0 if it is not known.

    Returns:
        None if too little of it came with a spacing to be seen, as over links of 2 Gbit/s, or
        within :data:`TRAIN_S` at all.

    Raises:
        ConfigError: a round trip that is negative or not finite.
    """
    if not (math.isfinite(rtt_s) and rtt_s >= 0):
        raise ConfigError(f"a round trip of {rtt_s} s; it must be finite and not negative")
    flights = _flights(_as_they_came(arrivals), _PAUSE_TRIPS * rtt_s)
    longest = max((sum(some.bytes for some in flight[1:]) for flight in flights), default=0)
    if longest < _LEAST_BYTES:
        return None
    stretch = min(_STRETCH_BYTES, longest)
    spaced = sorted(found for flight in flights for found in _spacings(flight, stretch))
    total = sum(size for _, size in spaced)
    so_far = itertools.accumulate(size for _, size in spaced)
    spacing = next(s for (s, _), sum_ in zip(spaced, so_far, strict=True) if 2 * sum_ >= total)
    if spacing * _MOST_BYTES_PER_S < 1:
        return None
    return RateEstimate(1 / spacing, lower_bound=True, at=arrivals[-1].at)


def _as_they_came(arrivals: Sequence[Arrival]) -> Flight:
    """Those of the first :data:`TRAIN_S`; what came at one time is one arrival."""
    came: Flight = []
    for some in arrivals:
        if came and some.at - came[0].at > TRAIN_S:
            break
        if came and some.at <= came[-1].at:
            came[-1] = Arrival(came[-1].at, came[-1].bytes + some.bytes)
        else:
            came.append(some)
    return came


def _flights(came: Flight, pause_s: float) -> list[Flight]:
    """What TCP sent at once."""
    flights: list[Flight] = []
    for some in came:
        if not flights or _paused(flights[-1], some, pause_s):
            flights.append([])
        flights[-1].append(some)
    return flights


def _paused(flight: Flight, after: Arrival, pause_s: float) -> bool:
    """Whether the next flight begins after this one; see :data:`_PAUSE_TRIPS`."""
    if sum(some.bytes for some in flight) < _FLIGHT_BYTES:
        return False
    silent_s, lasted_s = after.at - flight[-1].at, flight[-1].at - flight[0].at
    if pause_s > 0 and silent_s > pause_s:
        return True
    return len(flight) >= _PAUSED_ARRIVALS and silent_s > lasted_s


def _spacings(flight: Flight, stretch_bytes: int) -> Iterator[tuple[float, int]]:
    """Seconds per byte over the stretch that ends with an arrival, and the bytes of that one."""
    first = length = 0
    for last in range(1, len(flight)):
        length += flight[last].bytes
        while length - flight[first + 1].bytes >= stretch_bytes:
            first += 1
            length -= flight[first].bytes
        if length >= stretch_bytes:
            yield (flight[last].at - flight[first].at) / length, flight[last].bytes
