"""Trees that carry one state to several newcomers, and how much goes over each.

Model.  A tree says of every newcomer who sends to it: a donor, or another newcomer, who passes on
what it gets.  A tree that carries y bytes/s takes y of each of its links and of each receiver's
card, and of a sender's card y for each to whom it sends.  Wanted: rates of greatest sum.

What is exact.  That sum.  In any schedule every byte reaches every newcomer from one who has it, so
it goes over some tree: no schedule, whoever passes on what, is faster than the best mix of trees.
It is found by the simplex method with columns made as they are needed (Dantzig and Wolfe,
*Decomposition principle for linear programs*, 1960): the mix at hand gives every resource a price,
and the tree that costs least at these prices is the one to try next; if none costs less than it
brings, no mix is better.  The cheapest tree is a least :mod:`.arborescence`.  Where all that would
take long, the mix at hand is taken; its bound holds all the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_chaos.planning.arborescence import ROOT, least_arborescence

_ENOUGH = 1e-4
"""Share of the rate that may be missing."""
_NOTHING = 1e-9
"""Of a pivot: as good as zero."""
_HASTE = 15.0
"""How much dearer the busiest resource is than an idle one, as a power of e."""
_TURNS, _MOST_TURNS = 4, 600
"""Trees to begin with, per resource and at most."""
_WORK, _MOST_PIVOTS = 20_000_000, 10_000
"""Numbers that the rest of the search may compute, and its steps: it ends after a second or two."""
Tree = tuple[str, ...]
"""Who sends to each newcomer, in the order of these."""


class Mix(NamedTuple):
    """Trees that are used at the same time."""

    rates: dict[Tree, float]
    """Bytes/s of each."""
    bound: float
    """No mix of any trees carries more, bytes/s."""

    @property
    def total(self) -> float:
        """Bytes/s of all together."""
        return sum(self.rates.values())


class Network:
    """What the newcomers can be sent.

    Args:
        newcomers: names, at least one.
        links: (from, to) -> bytes/s, positive and finite, to newcomers; each has a way from donors.
        up: bytes/s that each sender's card sends to all; infinite if not named.
        down: bytes/s that each newcomer's card takes in; infinite if not named.
    """

    def __init__(
        self,
        newcomers: Sequence[str],
        links: Mapping[tuple[str, str], float],
        up: Mapping[str, float],
        down: Mapping[str, float],
    ) -> None:
        self._newcomers = newcomers
        self._rank = {name: rank for rank, name in enumerate(newcomers)}
        self._capacities: list[float] = []
        self._rows: dict[tuple[str, str], list[int]] = {edge: [] for edge in links}
        for cards, end in ((up, 0), (down, 1)):
            for name, rate in cards.items():
                theirs = [edge for edge in links if edge[end] == name]
                if rate < math.inf and theirs:
                    self._add(rate, theirs)
        for edge, rate in links.items():
            # A card that is no faster is the narrow place anyway.
            if all(self._capacities[row] > rate for row in self._rows[edge]):
                self._add(rate, [edge])

    def _add(self, rate: float, edges: Sequence[tuple[str, str]]) -> None:
        for edge in edges:
            self._rows[edge].append(len(self._capacities))
        self._capacities.append(rate)

    def best_mix(self) -> Mix:
        """Trees and rates of greatest sum."""
        even = self._even_mix()
        first, bound = sorted(even.rates, key=even.rates.__getitem__), even.bound
        search = _Search(self._capacities)
        for _ in range(min(_MOST_PIVOTS, _WORK // len(self._capacities) ** 2)):
            if search.spare_a_price():
                continue
            least, tree = self._bound(search.prices)
            bound = min(bound, least)
            if search.total >= bound * (1 - _ENOUGH):
                return Mix(search.rates(), bound)
            tree = first.pop() if first else tree
            search.add(tree, self._uses(tree))
        return Mix(search.rates(), bound) if search.total >= even.total else Mix(even.rates, bound)

    def _even_mix(self) -> Mix:
        """Trees that use all resources about evenly; a good mix, and a good start for a better one.

        Each is the cheapest where the ones before have left most, and carries as much as its
        narrowest place (Garg and Könemann, as in :meth:`.capacity.Capacity.pool`).
        """
        bound, load = math.inf, [0.0] * len(self._capacities)
        rates: dict[Tree, float] = {}
        for _ in range(min(_TURNS * len(load), _MOST_TURNS)):
            busiest = max(load) or 1.0
            both = zip(load, self._capacities, strict=True)
            least, tree = self._bound([math.exp(_HASTE * (x / busiest - 1)) / c for x, c in both])
            bound = min(bound, least)
            uses = self._uses(tree)
            rate = min(self._capacities[row] / use for row, use in uses.items())
            rates[tree] = rates.get(tree, 0.0) + rate
            for row, use in uses.items():
                load[row] += rate * use / self._capacities[row]
        return Mix({tree: rate / max(load) for tree, rate in rates.items()}, bound)

    def _bound(self, prices: Sequence[float]) -> tuple[float, Tree]:
        """What no mix exceeds, since each byte costs at least this tree: it, too."""
        tree = self._cheapest(prices)
        cost = sum(prices[row] * use for row, use in self._uses(tree).items())
        worth = sum(p * c for p, c in zip(prices, self._capacities, strict=True))
        return worth / cost if cost > 0 else math.inf, tree

    def _uses(self, tree: Tree) -> dict[int, float]:
        uses: dict[int, float] = {}
        for edge in zip(tree, self._newcomers, strict=True):
            for row in self._rows[edge]:
                uses[row] = uses.get(row, 0.0) + 1.0
        return uses

    def _cheapest(self, prices: Sequence[float]) -> Tree:
        costs: dict[tuple[int, int], float] = {}
        best: dict[tuple[int, int], str] = {}
        for (sender, receiver), rows in self._rows.items():
            link = self._rank.get(sender, ROOT), self._rank[receiver]
            cost = sum(prices[row] for row in rows)
            if cost < costs.get(link, math.inf):
                costs[link], best[link] = cost, sender
        parents = least_arborescence(len(self._newcomers), costs)
        return tuple(best[parent, rank] for rank, parent in enumerate(parents))


class _Search:
    """The revised simplex method on trees that come one by one; it starts with none.

    Args:
        capacities: of every resource, bytes/s.
    """

    def __init__(self, capacities: Sequence[float]) -> None:
        rows = range(len(capacities))
        self._scale = max(capacities)
        self._amounts = [capacity / self._scale for capacity in capacities]
        self._basis: list[Tree | None] = [None for _ in rows]
        """Of each row the tree whose rate it tells, None for what a resource has left."""
        self._inverse = [[float(row == other) for other in rows] for row in rows]
        self.prices = [0.0 for _ in rows]
        """What a byte/s more of each resource would add to the sum."""

    @property
    def total(self) -> float:
        """Sum of all rates, bytes/s."""
        return sum(self.rates().values())

    def rates(self) -> dict[Tree, float]:
        """Of the trees in use, bytes/s."""
        both = zip(self._basis, self._amounts, strict=True)
        return {tree: x * self._scale for tree, x in both if tree is not None and x > 0}

    def spare_a_price(self) -> bool:
        """Leave some of a resource unused if that pays; whether it did."""
        row = min(range(len(self.prices)), key=self.prices.__getitem__)
        if self.prices[row] > -_NOTHING:
            self.prices = [max(0.0, price) for price in self.prices]
            return False
        self._enter(None, [line[row] for line in self._inverse], -self.prices[row])
        return True

    def add(self, tree: Tree, uses: Mapping[int, float]) -> None:
        """Use one more tree, if it costs less than it brings."""
        gain = 1 - sum(self.prices[row] * use for row, use in uses.items())
        if gain > _NOTHING:
            column = [sum(line[row] * use for row, use in uses.items()) for line in self._inverse]
            self._enter(tree, column, gain)

    def _enter(self, tree: Tree | None, column: Sequence[float], gain: float) -> None:
        limits = [(self._amounts[r] / x, r) for r, x in enumerate(column) if x > _NOTHING]
        amount, row = min(limits)
        line = self._inverse[row] = [x / column[row] for x in self._inverse[row]]
        for other, factor in enumerate(column):
            if other != row:
                self._amounts[other] -= amount * factor
                if factor:
                    self._inverse[other] = [
                        x - factor * y for x, y in zip(self._inverse[other], line, strict=True)
                    ]
        self._amounts[row], self._basis[row] = amount, tree
        self.prices = [p + gain * x for p, x in zip(self.prices, line, strict=True)]
