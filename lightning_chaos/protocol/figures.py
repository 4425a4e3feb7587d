"""What is measured of the links between members, as one peer knows it (design §5).

Of each link its two ends know different things: who hears knows the rate, how it was learned and
how old that is, who sends knows the loss, both know the round trip.  Each tells the lead its row;
the lead puts them together, and lets what it was told grow old by its own clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from statistics import median

from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, LEAST_MBIT, Cap, Graph, Link
from lightning_chaos.protocol import scales
from lightning_chaos.protocol.messages import LinkFigures
from lightning_chaos.protocol.readings import Reading, Trust, confidence
from lightning_chaos.protocol.trips import Trips
from lightning_chaos.protocol.values import Pair, Uid, View, pair_of

_SMOOTHING = 0.3
"""What a new measurement of a rate counts for."""
MOST_MEMBERS = 24
"""Of views whose links are put together: beyond, plans take long to make and gain little."""
_Edge = tuple[Uid, Uid]
"""From, to."""


@dataclass(frozen=True, slots=True)
class _Rate:
    """Of what goes one way over a link, as its receiver told it."""

    step: int
    trust: Trust
    at: float
    """When it was measured, seconds."""


class Figures:
    """What one peer knows of the links: its own, and as lead those of all.

    Args:
        me: this incarnation.
        trips: round trips to its neighbours.
    """

    def __init__(self, me: Uid, trips: Trips) -> None:
        self._me = me
        self._own_trips = trips
        self._own_rates: dict[Uid, Reading] = {}
        """Smoothed; of what comes from each, their ages as of when they were told."""
        self._own_losses: dict[Uid, float] = {}
        self._own_at = 0.0
        self._rates: dict[_Edge, _Rate] = {}
        self._losses: dict[_Edge, int] = {}
        self._trips: dict[Pair, int] = {}
        self._cards: dict[Uid, int] = {}

    # ---- one's own -------------------------------------------------------------------------

    def measured(
        self, now: float, rates: Mapping[Uid, Reading], losses: Mapping[Uid, float], view: View
    ) -> str:
        """This node's worker has measured its links.

        Args:
            now: seconds.
            rates: of what comes from each.
            losses: of what goes to each, shares.
            view: installed; others are none of its neighbours.

        Returns:
            Why something of it cannot be, '' if all can.
        """
        problem = ""
        self._own_at = now
        for uid, reading in rates.items():
            rate = reading.bytes_per_s
            if not (math.isfinite(rate) and rate > 0 and 0 <= reading.age_s < math.inf):
                problem = f"{rate} bytes/s from {uid} is not a rate, or its age not; it is left out"
            elif view.find(uid) is None or uid == self._me:
                problem = f"a rate from {uid}, which is no other member; it is left out"
            else:
                self._own_rates[uid] = _smoothed(self._own_rates.get(uid), reading)
        for uid, share in losses.items():
            if not 0 <= share <= 1:
                problem = f"{share} is not the share that was lost to {uid}; it is left out"
            else:
                self._own_losses[uid] = share
        return problem

    @property
    def knows_rates(self) -> bool:
        """This node's worker has measured something."""
        return bool(self._own_rates)

    def row(self, now: float, view: View, card_mbit: int) -> LinkFigures:
        """What this peer has to tell of its links to the members.

        Args:
            now: seconds.
            view: installed.
            card_mbit: nominal speed of its network card, 0 if it is not known.
        """
        rates, trusts, ages, trips, losses = [], [], [], [], []
        for uid in view.uids:
            reading = self._own_rates.get(uid)
            known = self._rates.get((uid, self._me))
            before = known.step if known is not None else 0
            age_s = now - self._own_at + reading.age_s if reading is not None else 0.0
            rates.append(scales.RATE.step(reading.bytes_per_s, before) if reading else 0)
            trusts.append(reading.trust if reading else Trust.NOTHING)
            ages.append(scales.AGE.step(age_s) if reading else 0)
            trip, before = self._own_trips.of(uid), self._trips.get(pair_of(uid, self._me), 0)
            trips.append(scales.TRIP.step(trip.fastest_s, before) if trip else 0)
            share, before = self._own_losses.get(uid), self._losses.get((self._me, uid), 0)
            losses.append(scales.LOSS.step(share, before) if share is not None else 0)
        row = LinkFigures(
            view.epoch,
            tuple(rates),
            tuple(trips),
            tuple(trusts),
            tuple(ages),
            tuple(losses),
            card_mbit,
        )
        self.told(now, self._me, row, view)
        return row

    # ---- all -------------------------------------------------------------------------------

    def told(self, now: float, sender: Uid, row: LinkFigures, view: View) -> str:
        """A member tells what it has measured.

        Returns:
            Why it is not taken in, '' if it is.
        """
        if row.epoch != view.epoch:
            return f"figures of epoch {row.epoch}, epoch {view.epoch} is installed here"
        if view.rank(sender) is None:
            return "figures of one that is no member"
        lengths = {len(part) for part in (row.rates, row.trips, row.trusts, row.ages, row.losses)}
        if lengths != {len(view.uids)}:
            return f"figures of {min(lengths)} links, members are {len(view.uids)}"
        self._cards[sender] = row.card_mbit
        for rank, uid in enumerate(view.uids):
            if uid == sender:
                continue
            if row.rates[rank]:
                at = now - scales.AGE.value(row.ages[rank])
                self._rates[uid, sender] = _Rate(row.rates[rank], row.trusts[rank], at)
            if row.trips[rank]:
                self._trips[pair_of(uid, sender)] = row.trips[rank]
            if row.losses[rank]:
                self._losses[sender, uid] = row.losses[rank]
        return ""

    def keep_only(self, uids: Container[Uid]) -> None:
        """Forget the links of all others."""
        self._own_rates = {u: r for u, r in self._own_rates.items() if u in uids}
        self._own_losses = {u: s for u, s in self._own_losses.items() if u in uids}
        self._rates = {e: r for e, r in self._rates.items() if e[0] in uids and e[1] in uids}
        self._losses = {e: s for e, s in self._losses.items() if e[0] in uids and e[1] in uids}
        self._trips = {p: t for p, t in self._trips.items() if p[0] in uids and p[1] in uids}
        self._cards = {u: c for u, c in self._cards.items() if u in uids}

    def trips(self, view: View) -> dict[Uid, float]:
        """Round trips of this peer to the other members, as told last, seconds."""
        known = {uid: self._trips.get(pair_of(uid, self._me)) for uid in view.uids}
        return {uid: scales.TRIP.value(step) for uid, step in known.items() if step}

    def graph(self, now: float, view: View) -> Graph | None:
        """The view's links as measured; None while nothing is known, or it is too large.

        A rate that nobody has told, or long ago, is there with a confidence of 0.
        """
        if not 1 < len(view.uids) <= MOST_MEMBERS or not self._trips:
            return None
        usual_trip_s = median(map(scales.TRIP.value, self._trips.values()))
        links: dict[_Edge, Link] = {}
        for i, a in enumerate(view.uids):
            for b in view.uids[i + 1 :]:
                if view.joins(a, b):
                    step = self._trips.get(pair_of(a, b))
                    trip_s = scales.TRIP.value(step) if step else usual_trip_s
                    for edge in ((a, b), (b, a)):
                        links[edge] = self._link(now, edge, trip_s)
        if not any(link.confidence for link in links.values()):
            return None
        return Graph(view.uids, links, self._caps(view, links))

    def _link(self, now: float, edge: _Edge, trip_s: float) -> Link:
        rate, lost = self._rates.get(edge), self._losses.get(edge, 0)
        loss = scales.LOSS.value(lost) if lost > 1 else 0.0
        if rate is None:
            return Link(LEAST_MBIT, trip_s * 1e3 / 2, loss, confidence=0.0)
        age_s = scales.AGE.value(scales.AGE.step(now - rate.at))
        return Link(
            scales.RATE.value(rate.step) / BYTES_PER_S_PER_MBIT,
            trip_s * 1e3 / 2,
            loss,
            age_s,
            confidence(rate.trust, age_s),
        )

    def _caps(self, view: View, links: Mapping[_Edge, Link]) -> dict[Uid, Cap]:
        """Of the cards that say how fast they are, where what members say passes them.

        Members of one machine speak past its card, and one that is slower than what has come
        over it is not the one that it came over.
        """
        shared = Counter(member.machine for member in view.members if member.machine)
        fastest: dict[Uid, float] = {}
        for edge, link in links.items():
            for uid in edge:
                fastest[uid] = max(fastest.get(uid, 0.0), link.rate_mbit)
        caps = {}
        for member in view.members:
            card_mbit = self._cards.get(member.uid, 0)
            alone = shared[member.machine] <= 1
            if card_mbit and alone and card_mbit >= fastest.get(member.uid, 0.0):
                caps[member.uid] = Cap(card_mbit, card_mbit)
        return caps


def _smoothed(before: Reading | None, new: Reading) -> Reading:
    """A reading of another kind, and a lower bound, stand for themselves."""
    if before is None or before.trust is not new.trust or new.trust is Trust.AT_LEAST:
        return new
    rate = before.bytes_per_s + _SMOOTHING * (new.bytes_per_s - before.bytes_per_s)
    return Reading(rate, new.trust, new.age_s)
