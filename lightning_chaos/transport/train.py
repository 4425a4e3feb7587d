"""How fast a link is that was never used: a short train of bytes, seen from how it arrives.

A sender gives :data:`TRAIN_BYTES` to its connection at once.  At the narrowest place of the way
they queue, and behind it they come one after another at its rate (*packet dispersion*: Dovrolis,
Ramanathan, Moore, *What do packet dispersion techniques measure?*, 2001).

Two things hide that rate.  TCP sends a new connection's first bytes in flights of a few packets, a
round trip apart: the pause before a flight tells of the round trip.  And a way that has been idle
may let the first bytes through at once (a token bucket), so they tell of its depth.  Both are met
by the median: the spacing per byte that half of the bytes had at most.

The outcome is a first guess.  Cross traffic and a sender that paces itself (BBR) make it too low;
a bucket that holds more than the train, or a receiver that is busy for as long as the train takes
(half a millisecond at 1 Gbit/s), make it too high.
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
_LEAST_BYTES = 4 << 10
"""A spacing that fewer bytes tell of is chance."""
_MOST_BYTES_PER_S = 250e6
"""A spacing that says more is that of reads, not of arrivals."""
_FLIGHT_BYTES = 10 * 1200
"""TCP sends no flight shorter than that, ten segments (RFC 6928), while it has more to send."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Some bytes of a train."""

    at: float
    """When they were there, seconds."""
    bytes: int


def rate_of_train(arrivals: Sequence[Arrival], rtt_s: float) -> RateEstimate | None:
    """What the arrival of a train says of the link; a lower bound, for one train says little.

    Args:
        arrivals: in the order of time, at least as fine as the receiver could see.
        rtt_s: round trip of the link, seconds; 0 if it is not known.

    Returns:
        None if too little of it came with a spacing to be seen, as over links of 2 Gbit/s.

    Raises:
        ConfigError: a round trip that is negative or not finite.
    """
    if not (math.isfinite(rtt_s) and rtt_s >= 0):
        raise ConfigError(f"a round trip of {rtt_s} s; it must be finite and not negative")
    if not arrivals:
        return None
    spaced = sorted(_spacings(arrivals, rtt_s))
    total = sum(size for _, size in spaced)
    if total < _LEAST_BYTES:
        return None
    so_far = itertools.accumulate(size for _, size in spaced)
    spacing = next(s for (s, _), sum_ in zip(spaced, so_far, strict=True) if 2 * sum_ >= total)
    if spacing * _MOST_BYTES_PER_S < 1:
        return None
    return RateEstimate(1 / spacing, lower_bound=True, at=arrivals[-1].at)


def _spacings(arrivals: Sequence[Arrival], rtt_s: float) -> Iterator[tuple[float, int]]:
    """Seconds per byte, and of how many bytes; pauses between flights are left out."""
    flight = arrivals[0].bytes
    for before, after in itertools.pairwise(arrivals):
        if after.at - arrivals[0].at > TRAIN_S:
            return
        pause_s = after.at - before.at
        if rtt_s > 0 and pause_s > rtt_s / 2 and flight >= _FLIGHT_BYTES:
            flight = 0
        else:
            yield pause_s / after.bytes, after.bytes
        flight += after.bytes
