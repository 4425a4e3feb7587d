"""How long a control message takes to a neighbour and back, measured from heartbeats.

Every heartbeat carries its sender's clock, and to each neighbour the clock that it last read in a
heartbeat of that neighbour, with how long ago that was.  So who gets its own reading back knows the
round trip, without a message more and whatever the clocks show (RFC 3550, section 6.4.1).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from statistics import median_low

from lightning_chaos.protocol.values import Uid

Echo = tuple[int, int]
"""A neighbour's reading, and for how long it has been here; both in microseconds."""
NO_ECHO: Echo = (0, 0)
RETRANSMISSION_S = 0.2
"""A packet that was lost comes at least so much later (Linux's shortest timer for that)."""
_WRAP = 1 << 32
_LONGEST_S = 60.0
_SMOOTHING = 1 / 8
_DEVIATION = 1 / 4
_LATE = 1 / 16


@dataclass(slots=True)
class Trip:
    """The round trip to one neighbour: smoothed, and how much it varies (RFC 6298, section 2).

    What it is fed is the median of the last three measurements: a process that was stopped once
    says nothing about the link.
    """

    smoothed_s: float = 0.0
    """SRTT, seconds."""
    varies_s: float = 0.0
    """RTTVAR, seconds."""
    fastest_s: float = 0.0
    """The least of late, seconds; it drifts up so that a change of route is noticed."""
    late: float = 0.0
    """Share of late that took a retransmission more than the fastest: a sign of loss."""
    samples: int = 0
    _last: list[float] = field(default_factory=list)

    @property
    def bound_s(self) -> float:
        """Within so many seconds hardly any is not back (RTO without its lower limit)."""
        return self.smoothed_s + 4 * self.varies_s

    def add(self, seconds: float) -> None:
        """One measurement."""
        self._last = [*self._last[-2:], seconds]
        sample = median_low(self._last)
        if self.samples == 0:
            self.smoothed_s, self.varies_s, self.fastest_s = sample, sample / 2, sample
        else:
            self.varies_s += _DEVIATION * (abs(sample - self.smoothed_s) - self.varies_s)
            self.smoothed_s += _SMOOTHING * (sample - self.smoothed_s)
            drift = _LATE * max(0.0, self.smoothed_s - self.fastest_s)
            self.fastest_s = min(self.fastest_s + drift, seconds)
        self.late += _LATE * ((seconds > self.fastest_s + RETRANSMISSION_S) - self.late)
        self.samples += 1


class Trips:
    """The round trips of one peer, and what its heartbeats must say for others to measure theirs.

    Times are seconds on this peer's clock.
    """

    def __init__(self) -> None:
        self._trips: dict[Uid, Trip] = {}
        self._heard: dict[Uid, tuple[int, float]] = {}
        self._measured: dict[Uid, int] = {}

    def of(self, uid: Uid) -> Trip | None:
        """The round trip to that neighbour, None if none has been measured."""
        return self._trips.get(uid)

    def stamp(self, now: float) -> int:
        """This peer's clock, for a heartbeat: microseconds, never 0."""
        return int(now * 1e6) % _WRAP or 1

    def echo(self, now: float, uid: Uid) -> Echo:
        """What a heartbeat to that neighbour gives back of its last one."""
        stamp, at = self._heard.get(uid, (0, now))
        held_s = now - at
        return (stamp, int(held_s * 1e6)) if stamp and held_s < _LONGEST_S else NO_ECHO

    def heard(self, now: float, uid: Uid, sent: int, echo: Echo) -> Trip | None:
        """A heartbeat came straight from that neighbour; the trip if that measured it.

        Args:
            now: seconds.
            uid: neighbour.
            sent: its clock, 0 if it does not say.
            echo: what it gives back.
        """
        if sent:
            self._heard[uid] = (sent, now)
        stamp, held = echo
        # Only the first echo of a reading: when no more come, later ones say nothing new.
        if not stamp or self._measured.get(uid) == stamp:
            return None
        self._measured[uid] = stamp
        seconds = ((self.stamp(now) - stamp) % _WRAP - held) / 1e6
        if not 0 <= seconds < _LONGEST_S:
            return None
        trip = self._trips.setdefault(uid, Trip())
        trip.add(seconds)
        return trip

    def keep_only(self, uids: Container[Uid]) -> None:
        """Forget all others: they are no neighbours any more."""
        known = (self._trips, self._heard, self._measured)
        for uid in {uid for of in known for uid in of if uid not in uids}:
            for of in known:
                of.pop(uid, None)
