"""When what was last in trouble: a promise about links that work needs to know which do."""

from __future__ import annotations

from lightning_chaos.testing.simulator.clock import Clock

ALL = ""
"""Stands for all nodes at once."""


class Troubles:
    """The last time at which anything hindered a node, or the path between two.

    Args:
        clock: of the run.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[frozenset[str], float] = {}
        self._since: dict[frozenset[str], float] = {}

    def note(self, a: str = ALL, b: str = "", *, seconds: float = 0.0) -> None:
        """That node, or the path between the two, is hindered for so long from now on."""
        what, now = frozenset((a, b)), self._clock.now
        if self._until.get(what, -1.0) < now:
            self._since[what] = now
        self._until[what] = max(self._until.get(what, 0.0), now + seconds)

    def over(self) -> None:
        """All paths work from now on."""
        for what, until in self._until.items():
            if ALL not in what or len(what) == 1:
                self._until[what] = min(until, self._clock.now)

    def fine_s(self, a: str, b: str) -> float:
        """For how long two nodes and the path between them have not been hindered, seconds."""
        kinds = (frozenset((ALL,)), frozenset((a, ALL)), frozenset((b, ALL)), frozenset((a, b)))
        last = max(self._until.get(what, 0.0) for what in kinds)
        return self._clock.now - last

    def down_s(self, a: str, b: str) -> float:
        """For how long the path between two has been hindered, seconds; 0 if it is fine."""
        pair, now = frozenset((a, b)), self._clock.now
        return now - self._since[pair] if self._until.get(pair, -1.0) >= now else 0.0
