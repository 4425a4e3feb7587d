"""Who tells whom what is measured of the links, and what the lead makes of it (design §5).

Each member tells the lead one row: what it knows of its links (:mod:`.figures`), and its card.
It looks every timeout, and tells what has changed; all under a new view, whose lead may be new, and
now and then anyway, since a message may be lost with its connection.
"""

from __future__ import annotations

import msgspec

from lightning_chaos.protocol import local
from lightning_chaos.protocol.events import Level, Replanned
from lightning_chaos.protocol.figures import Figures
from lightning_chaos.protocol.messages import Gauges, LinkFigures
from lightning_chaos.protocol.ranges import MOST_MBIT
from lightning_chaos.protocol.replanning import Replanning
from lightning_chaos.protocol.standing import Role, Standing
from lightning_chaos.protocol.values import Host, Uid, View

_AGAIN = 30
"""Timeouts after which a row is told again, whether it has changed or not."""


class Survey:
    """One peer's part in measuring the links.

    Args:
        standing: shared with the other parts of this peer.
        replanning: of its lead.
    """

    def __init__(self, standing: Standing, replanning: Replanning) -> None:
        self._standing = standing
        self._replanning = replanning
        self.figures = Figures(standing.me.uid, standing.trips)
        self._total_bytes = 0
        self._told: LinkFigures | None = None
        self._told_at = self._looked_at = float("-inf")
        self._complained: set[Uid] = set()
        self._host: Host | None = None
        self._told_trips: dict[Uid, float] = {}

    def measured(self, said: local.Measured) -> None:
        """This node's worker has measured its data links."""
        standing = self._standing
        self._total_bytes = max(0, said.total_bytes)
        self._host = said.host or self._host
        if standing.view is not None and (
            problem := self.figures.measured(standing.now, said.rates, said.losses, standing.view)
        ):
            standing.log(f"the worker says: {problem}", Level.DEBUG)

    def show(self, uid: Uid) -> None:
        """Tell a visitor what is measured here; before the view, with which it has all it needs."""
        view = self._standing.view
        if self._host is not None and view is not None and self._standing.active:
            trips = (self._standing.trips.of(other) for other in view.uids)
            late = tuple(round(100 * trip.late) if trip is not None else 0 for trip in trips)
            self._standing.send(uid, Gauges(self._host, self._row(view), late))

    def hear(self, sender: Uid, row: LinkFigures) -> None:
        """A member tells what it has measured; what cannot be is refused, said once of each."""
        standing = self._standing
        if standing.view is None or not standing.active or row.epoch != standing.view.epoch:
            return
        problem = self.figures.told(standing.now, sender, row, standing.view)
        if problem and sender not in self._complained:
            self._complained.add(sender)
            standing.log(f"figures of {sender} are not taken: {problem}", Level.WARNING)

    def worked_out(self, answer: Replanned) -> None:
        """The driver has worked a plan out."""
        if self._standing.view is not None:
            self._replanning.answer(self._standing.now, answer, self._standing.view)

    def installed(self, view: View) -> None:
        """A view is installed: its lead knows nothing of this peer's links yet, perhaps."""
        self.figures.keep_only(view.everybody)
        self._told, self._looked_at = None, float("-inf")
        self._complained &= view.everybody

    def tick(self) -> None:
        """Tell the lead, or be it; once a timeout."""
        standing, view = self._standing, self._standing.view
        if view is None or standing.role is not Role.MEMBER or len(view.uids) < 2:
            return
        if standing.now - self._looked_at < standing.timeout_s:
            return
        self._looked_at = standing.now
        self._tell(view)
        if view.rank(standing.me.uid) == 0 and not view.learners:
            graph = self.figures.graph(standing.now, view)
            ask = self._replanning.ask(view, graph, self._total_bytes)
            if ask is not None:
                standing.do(ask)

    def _tell(self, view: View) -> None:
        """Tell the worker its round trips and the lead this peer's row, if they have changed."""
        standing, now, lead = self._standing, self._standing.now, view.uids[0]
        row = self._row(view)
        trips = self.figures.trips(view)
        if trips != self._told_trips:
            self._told_trips = trips
            standing.tell(local.RoundTrips(trips))
        if not self.figures.knows_rates or lead == standing.me.uid:
            return
        # That a figure grows old the lead knows by itself.
        said = msgspec.structs.replace(row, ages=())
        if said != self._told or now - self._told_at >= _AGAIN * standing.timeout_s:
            self._told, self._told_at = said, now
            standing.send(lead, row)

    def _row(self, view: View) -> LinkFigures:
        card_mbit = min(self._host.nic_mbit, MOST_MBIT) if self._host is not None else 0
        return self.figures.row(self._standing.now, view, card_mbit)
