"""How much goes over each of given trees, so that together they carry as much as possible.

Model.  Tree t takes ``u_tr`` bytes of resource r (a link or a network card) for each byte that it
carries; r has ``c_r`` bytes/s.  Wanted: rates ``y_t >= 0`` of greatest sum with
``sum_t u_tr y_t <= c_r`` for every r.  A linear program, solved exactly (up to rounding) by the
primal simplex method on the columns of what is not in the basis; ``y = 0`` is where it starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_NOTHING = 1e-9
"""Of a gain or pivot: as good as zero."""
_PIVOTS = 50
"""Allowed per row and column; many times what is ever needed, it only ends a circle."""


@dataclass(frozen=True, slots=True)
class Shares:
    """The best rates, and the prices that prove it."""

    rates: tuple[float, ...]
    """Of every tree, bytes/s."""
    prices: tuple[float, ...]
    """Of every resource: what one byte/s more of it would add to the sum of rates."""


def best_shares(uses: Sequence[Mapping[int, float]], capacities: Sequence[float]) -> Shares:
    """Rates of greatest sum.

    Args:
        uses: for every tree what a byte of it takes of which resource; none is empty.
        capacities: of every resource, bytes/s, positive and finite.
    """
    trees, rows = len(uses), len(capacities)
    scale = max(capacities)
    amounts = [capacity / scale for capacity in capacities]
    basis = list(range(trees, trees + rows))  # a tree, or ``trees + r``: what r has left
    columns = {t: [use.get(row, 0.0) for row in range(rows)] for t, use in enumerate(uses)}
    gains = dict.fromkeys(columns, 1.0)
    for _ in range(_PIVOTS * (trees + rows)):
        entering = max(gains, key=lambda v: (gains[v], -v))
        if gains[entering] <= _NOTHING:
            break
        column, gain = columns.pop(entering), gains.pop(entering)
        limits = ((amounts[r] / x, basis[r], r) for r, x in enumerate(column) if x > _NOTHING)
        amount, leaving, row = min(limits)
        pivot = column[row]
        amounts = [a - amount * x for a, x in zip(amounts, column, strict=True)]
        amounts[row] = amount
        for variable, other in columns.items():
            if factor := other[row] / pivot:
                new = [a - factor * x for a, x in zip(other, column, strict=True)]
                new[row] = factor
                columns[variable] = new
                gains[variable] -= factor * gain
        columns[leaving] = [-x / pivot for x in column]
        columns[leaving][row] = 1 / pivot
        gains[leaving] = -gain / pivot
        basis[row] = entering
    rates = [0.0] * trees
    for variable, amount in zip(basis, amounts, strict=True):
        if variable < trees:
            rates[variable] = max(0.0, amount) * scale
    prices = (max(0.0, -gains.get(trees + row, 0.0)) for row in range(rows))
    return Shares(tuple(rates), tuple(prices))
