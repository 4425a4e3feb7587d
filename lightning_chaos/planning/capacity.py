"""What the links and network cards of a cluster carry, and trees that spare the busy ones."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from lightning_chaos.errors import PlanError
from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Graph
from lightning_chaos.planning.mesh import cut_off

Edge = tuple[int, int]
"""Two ranks that have a link both ways, smaller first."""

_HASTE = 6.0
"""How much dearer the busiest resource is than an idle one, as a power of e."""


class Capacity:
    """The resources that trees share: every link, and every card that has a cap.

    A tree takes of a link the same both ways (sums up, results down), and of a member's card as
    many times that as the member has links in the tree.  So a link carries what its slower way
    carries and a card what its slower direction does.

    Args:
        graph: the cluster; a link that is there one way only is not used.

    Raises:
        PlanError: it has no members.
    """

    def __init__(self, graph: Graph) -> None:
        if not graph.members:
            raise PlanError("there is nobody to plan for; a plan needs at least one member")
        self.members = graph.members
        self.round_trip_s: dict[Edge, float] = {}
        """Of a small message over each link and back, seconds."""
        self.capacities: list[float] = []
        """Bytes/s of every resource: first the links in order, then the cards."""
        self._card: dict[int, int] = {}
        ranks = range(len(graph.members))
        for a in ranks:
            for b in ranks[a + 1 :]:
                there = graph.links.get((graph.members[a], graph.members[b]))
                back = graph.links.get((graph.members[b], graph.members[a]))
                if there and back:
                    self.round_trip_s[a, b] = (there.latency_ms + back.latency_ms) / 1e3
                    rate_mbit = min(there.rate_mbit, back.rate_mbit)
                    self.capacities.append(rate_mbit * BYTES_PER_S_PER_MBIT)
        self.links = {edge: row for row, edge in enumerate(self.round_trip_s)}
        """Place of every link among the resources."""
        for rank, name in enumerate(graph.members):
            cap_mbit = min(graph.cap(name).up_mbit, graph.cap(name).down_mbit)
            if cap_mbit < math.inf:
                self._card[rank] = len(self.capacities)
                self.capacities.append(cap_mbit * BYTES_PER_S_PER_MBIT)

    def uses(self, edges: Iterable[Edge]) -> dict[int, float]:
        """How many bytes of each resource a tree of these links takes per byte."""
        uses: dict[int, float] = {}
        for edge in edges:
            cards = (self._card[rank] for rank in edge if rank in self._card)
            for row in (self.links[edge], *cards):
                uses[row] = uses.get(row, 0.0) + 1.0
        return uses

    def seconds_per_byte(self, uses: Mapping[int, float]) -> float:
        """Time that the slowest resource needs for so many bytes of each."""
        return max(load / self.capacities[row] for row, load in uses.items())

    def bound(self, prices: Sequence[float]) -> float:
        """What trees can carry together at most, bytes/s, by linear programming duality.

        For any prices, a byte takes at least those of the cheapest tree, and all resources
        together are worth ``sum of price * capacity``.
        """
        cheapest = self.grow(prices, 0, len(self.members))
        cost = sum(prices[row] * use for row, use in self.uses(cheapest).items())
        worth = sum(p * c for p, c in zip(prices, self.capacities, strict=True))
        return worth / cost if cost > 0 else math.inf

    @cached_property
    def simple_bound(self) -> float:
        """The same by four special cases, bytes/s.

        All links carry n-1 links' worth for each byte; the links of one member one; its card
        one; all cards, if they have caps, 2(n-1) in all.
        """
        others = len(self.members) - 1
        around = [0.0] * len(self.members)
        for (a, b), row in self.links.items():
            around[a] += self.capacities[row]
            around[b] += self.capacities[row]
        bounds = [sum(around) / 2 / others, *around]
        cards = [self.capacities[row] for row in self._card.values()]
        if len(cards) == len(self.members):
            bounds.append(sum(cards) / (2 * others))
        return min(bounds + cards)

    def pool(self, size: int, height: int) -> dict[tuple[Edge, ...], float]:
        """Different trees that together use all resources evenly, and bytes/s for each.

        Each is grown where the ones before have left most, from the members in turn, and carries
        as much as its narrowest place (Garg and Könemann, "Faster and simpler algorithms for
        multicommodity flow", with trees for paths); the rates are scaled down to fit together.

        Args:
            size: how many to grow; equal ones become one.
            height: links from the root to the farthest member, more only where there is no way.

        Raises:
            PlanError: the links do not join all members.
        """
        load = [0.0] * len(self.capacities)
        rates: dict[tuple[Edge, ...], float] = {}
        for turn in range(size):
            busiest = max(load) or 1.0
            prices = [
                math.exp(_HASTE * (x / busiest - 1)) / c
                for x, c in zip(load, self.capacities, strict=True)
            ]
            edges = self.grow(prices, turn % len(self.members), height)
            uses = self.uses(edges)
            rate = 1 / self.seconds_per_byte(uses)
            for row, use in uses.items():
                load[row] += rate * use / self.capacities[row]
            rates[edges] = rates.get(edges, 0.0) + rate
        busiest = max(load)
        return {edges: rate / busiest for edges, rate in rates.items()}

    def all_trees(self) -> Iterator[tuple[Edge, ...]]:
        """Every tree there is, in order; for few members."""
        for edges in itertools.combinations(self.links, len(self.members) - 1):
            group = list(range(len(self.members)))
            for a, b in edges:
                group = [group[a] if one == group[b] else one for one in group]
            if len(set(group)) == 1:
                yield edges

    def grow(self, prices: Sequence[float], root: int, height: int) -> tuple[Edge, ...]:
        """A cheap tree of limited height: the cheapest, if the limit does not bind (Prim).

        Args:
            prices: of every resource.
            root: rank to grow from.
            height: farther from the root than that only where there is no other way.

        Raises:
            PlanError: the links do not join all members.
        """
        card = [prices[self._card[r]] if r in self._card else 0.0 for r, _ in enumerate(self._near)]
        depth, edges = {root: 0}, []
        offers: list[tuple[int, float, int, int]] = []
        newest = root
        while len(depth) < len(self.members):
            late = max(0, depth[newest] + 1 - height)
            for rank, row in self._near[newest]:
                if rank not in depth:
                    price = prices[row] + card[rank] + card[newest]
                    heapq.heappush(offers, (late, price, newest, rank))
            while newest in depth:
                if not offers:
                    raise PlanError(cut_off(self.members, depth))
                _, _, above, newest = heapq.heappop(offers)
            depth[newest] = depth[above] + 1
            edges.append((min(above, newest), max(above, newest)))
        return tuple(sorted(edges))

    @cached_property
    def _near(self) -> list[list[tuple[int, int]]]:
        near: list[list[tuple[int, int]]] = [[] for _ in self.members]
        for (a, b), row in self.links.items():
            near[a].append((b, row))
            near[b].append((a, row))
        return near
