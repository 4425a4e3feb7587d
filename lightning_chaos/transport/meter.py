"""What comes over one link: what transfers show, and trains when there are none.

A train says little (:mod:`.train`), so what they say is the median of the last three.  Where
a transfer has shown the rate before, trains are first held against it: if they agree within
:data:`AGREES`, they are believed from then on, confirm the rate, and tell when it has changed by
more than that.  Where they do not (a token bucket lets a whole train pass at once, a receiver is
busy) they tell nothing, and the rate that the transfer has shown grows old.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median_low

from lightning_chaos.protocol.readings import Reading, Trust
from lightning_chaos.transport.rate import PassiveRate, RateEstimate
from lightning_chaos.transport.train import TRAIN_BYTES, TRAIN_S, Arrival, rate_of_train

AGREES = 2.0
"""Trains within that factor of a transfer say the same."""
LEAST_TRAIN_BYTES = 8 << 10
_TRAINS = 3


@dataclass(frozen=True, slots=True, order=True)
class _Said:
    """What a train says."""

    bytes_per_s: float
    at_least: bool
    """It came too fast to see how fast: this much at least, counted from when it was asked for."""

    def says_other_than(self, transfer: RateEstimate) -> bool:
        """It is not what the transfer has shown; a lower bound that is lower is no news."""
        return not self.at_least or self.bytes_per_s > transfer.bytes_per_s


class LinkMeter:
    """The rate of one link in one direction, over all connections that there have been.

    Payloads and trains are told as they come: :meth:`begin` or :meth:`begin_train`, then
    :meth:`received`, then :meth:`end`.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._transfers = PassiveRate()
        self._rtt_s = 0.0
        self._asked_at: float | None = None
        """When the train was asked for that is to come, None if it would not tell anything."""
        self._coming: list[Arrival] | None = None
        self._said: list[_Said] = []
        """By the last trains since transfers have shown the rate."""
        self._said_at = -math.inf
        self._believed = False
        """Trains have agreed with the transfer before them."""

    def know_rtt(self, rtt_s: float) -> None:
        """The round trip of the link is this, seconds."""
        if rtt_s != self._rtt_s:
            self._rtt_s = rtt_s
            self._transfers.know_rtt(rtt_s)

    # ---- fed -------------------------------------------------------------------------------

    def begin(self) -> None:
        """A payload is announced that its sender has at hand."""
        if self._coming is None:
            self._transfers.begin()

    def ask_train(self) -> int:
        """A train is asked for now; how long it should be, bytes."""
        self._asked_at = self._clock()
        known = self.reading()
        if known is None or known.trust is Trust.AT_LEAST:
            return TRAIN_BYTES
        return min(TRAIN_BYTES, max(LEAST_TRAIN_BYTES, int(known.bytes_per_s * TRAIN_S)))

    def begin_train(self) -> None:
        """A train is announced."""
        self._coming = []

    def left_unread(self) -> None:
        """What is in front of the train has to wait: its bytes will come all at once."""
        self._asked_at = None

    def received(self, size: int) -> None:
        """So many bytes came."""
        if self._coming is not None:
            self._coming.append(Arrival(self._clock(), size))
        else:
            self._transfers.received(self._clock(), size)

    def end(self) -> None:
        """The payload or train is over, or the connection is."""
        coming, self._coming = self._coming, None
        if coming is None:
            self._transfers.end()
        elif coming and self._asked_at is not None:
            self._hear(coming, self._asked_at)
            self._asked_at = None

    def _hear(self, arrivals: list[Arrival], asked_at: float) -> None:
        transfer = self._certain
        if transfer is not None and transfer.at > self._said_at:
            self._said, self._believed = [], False
        found = rate_of_train(arrivals, self._rtt_s)
        self._said_at = arrivals[-1].at
        if found is not None:
            said = _Said(found.bytes_per_s, at_least=False)
        elif (lasted_s := self._said_at - arrivals[0].at) > TRAIN_S:
            # So slow that next to nothing came while trains are looked at.
            later = sum(arrival.bytes for arrival in arrivals[1:])
            said = _Said(later / lasted_s, at_least=False)
        else:
            size = sum(arrival.bytes for arrival in arrivals)
            said = _Said(size / max(self._said_at - asked_at, 1e-6), at_least=True)
        self._said = [*self._said[1 - _TRAINS :], said]
        if transfer is not None and len(self._said) == _TRAINS:
            middle = median_low(self._said)
            same = _within(AGREES, middle.bytes_per_s, transfer.bytes_per_s)
            if self._believed and not same and middle.says_other_than(transfer):
                self._transfers.forget()
            self._believed = self._believed or (same and not middle.at_least)

    # ---- known -----------------------------------------------------------------------------

    @property
    def silent_s(self) -> float:
        """Since anything came that tells the rate, seconds; infinite if nothing has.

        A lower bound does not: over a long way transfers may never be long enough to tell more.
        """
        transfer = self._certain
        return self._clock() - max(self._said_at, transfer.at if transfer else -math.inf)

    @property
    def _certain(self) -> RateEstimate | None:
        """What transfers have shown, None if they show a lower bound at most."""
        transfer = self._transfers.estimate
        return None if transfer is None or transfer.lower_bound else transfer

    def reading(self) -> Reading | None:
        """What is known by now, None if nothing is."""
        now, transfer = self._clock(), self._transfers.estimate
        if self._certain is not None:
            return self._shown(self._certain, now)
        least = transfer.bytes_per_s if transfer is not None else 0.0
        if self._said:
            middle = median_low(self._said)
            if not middle.at_least and middle.bytes_per_s >= least:
                trust = Trust.MEASURED if self._believed else Trust.TRAIN
                return Reading(middle.bytes_per_s, trust, now - self._said_at)
            least = max(least, middle.bytes_per_s)
        return Reading(least, Trust.AT_LEAST) if least else None

    def _shown(self, transfer: RateEstimate, now: float) -> Reading:
        """By a transfer, and perhaps confirmed by trains."""
        at = transfer.at
        if self._believed and not median_low(self._said).at_least:
            at = max(at, self._said_at)
        return Reading(transfer.bytes_per_s, Trust.MEASURED, now - at)


def _within(factor: float, a: float, b: float) -> bool:
    return a <= factor * b and b <= factor * a
