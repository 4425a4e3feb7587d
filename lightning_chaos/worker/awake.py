"""How long this process has really waited: what came while it did not run is not read yet."""

from __future__ import annotations


class Awake:
    """Counts of a wait only the time in which this process ran.

    A machine that sleeps, or whose processors are wanted elsewhere, stops all its nodes together;
    none of them may hold that against the others.

    Args:
        most_s: so much later than it should a look may come without the time counting as lost,
            seconds.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._waited_s = self._lost_s = 0.0

    def seconds(self, waited_s: float, late_s: float) -> float:
        """How long it has waited awake.

        Args:
            waited_s: how long it has by the clock, seconds; less than before if it began anew.
            late_s: how much later than it should this look comes, seconds.
        """
        if waited_s < self._waited_s:
            self._lost_s = 0.0
        self._waited_s = waited_s
        if late_s > self._most_s:
            self._lost_s += late_s
        return max(0.0, waited_s - self._lost_s)
