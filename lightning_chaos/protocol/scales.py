"""Figures as they travel: numbers of steps on scales of ratios (design §5).

A figure is told as another step only when it has moved by most of one: what changes by chance says
nothing, and a member's row of figures takes a byte or two for each figure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST_STEPS = 255
_STICKY = 0.75
"""Steps that a figure must be away from the one told before another is told."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Steps of one kind of figure; 0 is none of them, and stands for what is not known."""

    unit: float
    """What step 1 stands for, and whatever is less."""
    ratio: float
    """Of each step to the one before."""
    most: float = math.inf
    """What no step goes beyond."""

    def step(self, value: float, before: int = 0) -> int:
        """The step that a figure is told as.

        Args:
            value: the figure, not negative.
            before: as what it was told last, 0 if it was not.
        """
        exact = 1 + math.log(max(value, self.unit) / self.unit) / math.log(self.ratio)
        if before and abs(exact - before) < _STICKY:
            return before
        return min(round(exact), MOST_STEPS)

    def value(self, step: int) -> float:
        """The figure that a step stands for."""
        return min(self.unit * self.ratio ** (step - 1), self.most)


RATE = Scale(1e3, 1.1)
"""Bytes/s."""
TRIP = Scale(1e-5, 1.1)
"""Seconds."""
LOSS = Scale(1e-4, 1.5, most=0.99)
"""Shares of packets; step 1 is none, or next to none."""
AGE = Scale(1.0, 2.0)
"""Seconds since something was measured."""
