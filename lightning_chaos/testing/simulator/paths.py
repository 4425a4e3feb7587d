"""The paths between machines: how long they take, and whether anything gets through."""

from __future__ import annotations

from collections.abc import Callable

from lightning_chaos.testing.simulator.clock import Clock

Watcher = Callable[[str, str, str], None]
"""Is told of what was just sent: its kind, the names of sender and receiver."""


class Paths:
    """A path is fine, cut (connections are reset, dialling fails) or stalled (silence).

    Args:
        clock: of the run.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._closed: dict[frozenset[str], str] = {}
        self._opens_at: dict[frozenset[str], float] = {}
        self._slow_until = 0.0
        self._dragging: dict[str, float] = {}
        self.watchers: list[Watcher] = []

    def state(self, a: str, b: str) -> str:
        """Of the path between two nodes: '', 'cut' or 'stalled'."""
        return self._closed.get(frozenset((a, b)), "") if self._closed else ""

    def close(self, a: str, b: str, state: str, seconds: float) -> None:
        """Nothing gets through for so long."""
        pair = frozenset((a, b))
        self._closed[pair] = state
        self._opens_at[pair] = self._clock.now + seconds
        self._clock.after(seconds, lambda: self._open(pair))

    def _open(self, pair: frozenset[str]) -> None:
        if self._opens_at[pair] <= self._clock.now:
            self._closed.pop(pair, None)

    def open_all(self) -> None:
        """The network is fine again."""
        self._closed.clear()
        self._dragging.clear()
        self._slow_until = 0.0

    def slow(self, seconds: float) -> None:
        """All messages take long for a while."""
        self._slow_until = self._clock.now + seconds

    def drag(self, name: str, seconds: float) -> None:
        """One node is slow for a while, and what it sends takes long."""
        self._dragging[name] = self._clock.now + seconds

    def drags(self, name: str) -> bool:
        """Whether that node is slow at present."""
        return self._dragging.get(name, 0.0) > self._clock.now

    def delay(self, sender: str) -> float:
        """Of one message, seconds."""
        rng = self._clock.rng
        if self._clock.now < self._slow_until or self.drags(sender):
            return rng.uniform(0.001, 0.6)
        return rng.choice((0.001, 0.003, 0.01, 0.03, rng.uniform(0, 0.15)))

    def sent(self, kind: str, sender: str, to: str) -> None:
        """Tell the watchers what goes on its way."""
        for watch in tuple(self.watchers):
            watch(kind, sender, to)
