"""The one knob, ``timeout``: how long a silence of each link is tolerated (design §4).

A link that works may be silent for one heartbeat, and, should the network lose it, for the time
that TCP takes to send it again.  The bound that is derived from the round trip allows two losses in
a row.  With that it is the least timeout up to a round trip of about 60 ms that does not vary much.
"""

from __future__ import annotations

from collections.abc import Container

from lightning_chaos.protocol.trips import RETRANSMISSION_S, Trip
from lightning_chaos.protocol.values import Uid

LEAST_S = 1.0
"""Timeout where the round trip is short, seconds."""
LONGEST_S = 60.0
"""No derived timeout is longer, seconds."""
BEATS = 5
"""Heartbeats in one timeout."""
_TRIES = 3
_ENOUGH = 8
"""A setting is judged after so many measurements."""


def derived_s(trip: Trip, beat_s: float) -> float:
    """Longest silence that a link with such a round trip should be allowed, seconds.

    Args:
        trip: as measured.
        beat_s: between two heartbeats, seconds.
    """
    once = trip.smoothed_s + max(RETRANSMISSION_S, 4 * trip.varies_s)
    return min(LONGEST_S, beat_s + _TRIES * once)


class Timeouts:
    """The longest silence tolerated: of each link, and of all.

    Args:
        given_s: what the user has set, for all links, seconds; None to derive it.
    """

    def __init__(self, given_s: float | None) -> None:
        self.given_s = given_s
        self.least_s = LEAST_S if given_s is None else given_s
        """Where nothing is measured, seconds."""
        self.beat_s = self.least_s / BEATS
        """Between two heartbeats, seconds: the same on all links."""
        self.longest_s = self.least_s
        """Of all links: for whatever is not about one link, seconds."""
        self._longer: dict[Uid, float] = {}
        self._judged: set[Uid] = set()

    def of(self, uid: Uid) -> float:
        """Of the link to that neighbour, seconds."""
        return self._longer.get(uid, self.least_s)

    def measured(self, uid: Uid, trip: Trip) -> str:
        """The round trip of a link is known better now.

        Returns:
            What is wrong with the user's setting, once for each link; '' if nothing is.
        """
        if self.given_s is not None:
            return self._judge(uid, trip, self.given_s)
        wanted = derived_s(trip, self.beat_s)
        if wanted > self.least_s:
            self._longer[uid] = wanted
            self._sum_up()
        elif self._longer.pop(uid, None) is not None:
            self._sum_up()
        return ""

    def keep_only(self, uids: Container[Uid]) -> None:
        """Forget all others: they are no neighbours any more."""
        self._longer = {uid: s for uid, s in self._longer.items() if uid in uids}
        self._judged = {uid for uid in self._judged if uid in uids}
        self._sum_up()

    def _sum_up(self) -> None:
        self.longest_s = max(self._longer.values(), default=self.least_s)

    def _judge(self, uid: Uid, trip: Trip, given_s: float) -> str:
        if uid in self._judged or trip.samples < _ENOUGH:
            return ""
        self._judged.add(uid)
        if self.beat_s + _TRIES * trip.bound_s <= given_s:
            return ""
        return (
            f"timeout={given_s:g} s is short for the link to {uid}, where a heartbeat takes up to "
            f"{trip.bound_s * 1e3:.0f} ms there and back: it may be given up though it works. Set "
            f"{derived_s(trip, self.beat_s):.1f} s or leave timeout (CHAOS_TIMEOUT) out"
        )
