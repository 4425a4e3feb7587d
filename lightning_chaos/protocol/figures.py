"""What is measured of the links between members, in coarse steps that travel (design §5).

A figure is told as the number of a step on a scale on which each is a tenth above the one before,
and only when it has moved by most of a step: so what changes by chance says nothing, and one
member's row of figures takes a byte or two for each other member.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping

from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Graph, Link
from lightning_chaos.protocol.messages import LinkFigures
from lightning_chaos.protocol.trips import Trips
from lightning_chaos.protocol.values import Pair, Uid, View, pair_of

MOST_STEPS = 255
RATE_UNIT = 1e3
"""Bytes/s of step 1; what is slower is told as this."""
TRIP_UNIT_S = 1e-5
"""Seconds of step 1."""
_RATIO = 1.1
_STICKY = 0.75
"""Steps that a figure must be away from the one told before another is told."""
_SMOOTHING = 0.3
"""What a new measurement of a rate counts for."""
MOST_MEMBERS = 24
"""Of views whose links are put together: beyond, plans take long to make and gain little."""


def step_of(value: float, unit: float, before: int = 0) -> int:
    """The step that a figure is told as.

    Args:
        value: the figure, positive.
        unit: what step 1 stands for.
        before: as what it was told last, 0 if it was not.
    """
    exact = 1 + math.log(value / unit) / math.log(_RATIO)
    if before and abs(exact - before) < _STICKY:
        return before
    return min(max(1, round(exact)), MOST_STEPS)


def value_of(step: int, unit: float) -> float:
    """The figure that a step stands for."""
    return unit * _RATIO ** (step - 1)


class Figures:
    """What one peer knows of the links: its own, and as lead those of all.

    Args:
        me: this incarnation.
        trips: round trips to its neighbours.
    """

    def __init__(self, me: Uid, trips: Trips) -> None:
        self._me = me
        self._own_trips = trips
        self._smooth: dict[Uid, float] = {}
        self._rates: dict[tuple[Uid, Uid], int] = {}
        """(from, to): as its receiver told it."""
        self._trips: dict[Pair, int] = {}

    def measured(self, rates: Mapping[Uid, float], view: View) -> str:
        """This node's worker has measured what comes to it.

        Args:
            rates: bytes/s from each.
            view: installed; others are none of its neighbours.

        Returns:
            Why something of it cannot be, '' if all can.
        """
        problem = ""
        for uid, rate in rates.items():
            if not (math.isfinite(rate) and rate > 0):
                problem = f"{rate} bytes/s from {uid} is not a rate; it is left out"
            elif view.find(uid) is None or uid == self._me:
                problem = f"a rate from {uid}, which is no other member; it is left out"
            else:
                before = self._smooth.get(uid, rate)
                self._smooth[uid] = before + _SMOOTHING * (rate - before)
        return problem

    @property
    def knows_rates(self) -> bool:
        """This node's worker has measured something."""
        return bool(self._smooth)

    def row(self, view: View) -> LinkFigures:
        """What this peer has to tell of its links to the members."""
        rates, trips = [], []
        for uid in view.uids:
            rate, trip = self._smooth.get(uid), self._own_trips.of(uid)
            known = self._rates.get((uid, self._me), 0)
            rates.append(step_of(rate, RATE_UNIT, known) if rate else 0)
            known = self._trips.get(pair_of(uid, self._me), 0)
            seconds = max(trip.fastest_s, TRIP_UNIT_S) if trip is not None else 0.0
            trips.append(step_of(seconds, TRIP_UNIT_S, known) if seconds else 0)
        row = LinkFigures(view.epoch, tuple(rates), tuple(trips))
        self.told(self._me, row, view)
        return row

    def told(self, sender: Uid, row: LinkFigures, view: View) -> str:
        """A member tells what it has measured.

        Returns:
            Why it is not taken in, '' if it is.
        """
        if row.epoch != view.epoch:
            return f"figures of epoch {row.epoch}, epoch {view.epoch} is installed here"
        if view.rank(sender) is None:
            return "figures of one that is no member"
        if not len(row.rates) == len(row.trips) == len(view.uids):
            return f"figures of {len(row.rates)} links, members are {len(view.uids)}"
        for uid, rate, trip in zip(view.uids, row.rates, row.trips, strict=True):
            if uid != sender and rate:
                self._rates[uid, sender] = rate
            if uid != sender and trip:
                self._trips[pair_of(uid, sender)] = trip
        return ""

    def keep_only(self, uids: Container[Uid]) -> None:
        """Forget the links of all others."""
        self._smooth = {uid: rate for uid, rate in self._smooth.items() if uid in uids}
        self._rates = {e: r for e, r in self._rates.items() if e[0] in uids and e[1] in uids}
        self._trips = {p: t for p, t in self._trips.items() if p[0] in uids and p[1] in uids}

    def graph(self, view: View) -> Graph | None:
        """The view's links as measured; None while a figure is not known, or it is too large."""
        if not 1 < len(view.uids) <= MOST_MEMBERS:
            return None
        links: dict[tuple[str, str], Link] = {}
        for i, a in enumerate(view.uids):
            for b in view.uids[i + 1 :]:
                if not view.joins(a, b):
                    continue
                trip = self._trips.get(pair_of(a, b))
                for edge in ((a, b), (b, a)):
                    rate = self._rates.get(edge)
                    if rate is None or trip is None:
                        return None
                    mbit = value_of(rate, RATE_UNIT) / BYTES_PER_S_PER_MBIT
                    links[edge] = Link(mbit, value_of(trip, TRIP_UNIT_S) * 1e3 / 2)
        return Graph(view.uids, links)
