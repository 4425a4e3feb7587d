"""The paths between machines: how long they take, and whether anything gets through."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lightning_chaos.testing.simulator.clock import Clock

Watcher = Callable[[str, str, str], None]
"""Is told of what was just sent: its kind, the names of sender and receiver."""
Way = tuple[str, str]
"""From the first node to the second."""

_DELAYS_S = (0.001, 0.003, 0.01, 0.03)
_LONGEST_S = 0.15
_NEAR_S = (0.0005, 0.002, 0.01)


class Paths:
    """Each way is fine, cut (connections are reset, dialling fails) or stalled (silence).

    Args:
        clock: of the run.
        never: pairs of nodes between which there is no path at any time.
        delay_s: of all messages, virtual seconds; 0: as chance has it.
    """

    def __init__(
        self, clock: Clock, never: Iterable[tuple[str, str]] = (), delay_s: float = 0.0
    ) -> None:
        self._clock = clock
        self._delay_s = delay_s
        self._never = {way: "cut" for a, b in never for way in ((a, b), (b, a))}
        self._closed: dict[Way, str] = dict(self._never)
        self._opens_at: dict[Way, float] = {}
        self._waiting: dict[Way, list[Callable[[], None]]] = {}
        self._no_data: dict[Way, tuple[str, float]] = {}
        """Ways that carry messages between peers but nothing between workers, and until when."""
        self._slow_until = 0.0
        self._dragging: dict[str, float] = {}
        self._double_until: dict[frozenset[str], float] = {}
        self.watchers: list[Watcher] = []

    # ---- ways ------------------------------------------------------------------------------

    def state(self, a: str, b: str) -> str:
        """Of what a sends to b: '' (it gets through), 'cut' or 'stalled'."""
        return self._closed.get((a, b), "") if self._closed else ""

    def joined(self, a: str, b: str) -> bool:
        """A connection between these can be made: both ways are fine."""
        return not self._closed or not (self.state(a, b) or self.state(b, a))

    def data_state(self, a: str, b: str) -> str:
        """The same of what the worker of a sends to that of b."""
        closed = self.state(a, b)
        if closed or not self._no_data:
            return closed
        state, until = self._no_data.get((a, b), ("", 0.0))
        return state if until > self._clock.now else ""

    def data_joined(self, a: str, b: str) -> bool:
        """A data connection between these can be made."""
        return not (self.data_state(a, b) or self.data_state(b, a))

    def close_data(self, a: str, b: str, state: str, seconds: float, *, back: bool = True) -> None:
        """Workers get nothing through for so long; their peers do."""
        for way in ((a, b), (b, a)) if back else ((a, b),):
            until = max(self._no_data.get(way, ("", 0.0))[1], self._clock.now + seconds)
            self._no_data[way] = state, until

    def close(self, a: str, b: str, state: str, seconds: float, *, back: bool = True) -> None:
        """Nothing gets through from a to b for so long, nor back unless that is told."""
        for way in ((a, b), (b, a)) if back else ((a, b),):
            if way not in self._never:
                self._closed[way] = state
                until = self._clock.now + seconds
                self._opens_at[way] = max(self._opens_at.get(way, 0.0), until)
        self._clock.after(seconds, self._open)

    def _open(self) -> None:
        for way, at in list(self._opens_at.items()):
            if at <= self._clock.now:
                del self._opens_at[way], self._closed[way]
                self._release(way)

    def open_all(self) -> None:
        """The network is fine again."""
        self._opens_at = dict.fromkeys(self._opens_at, self._clock.now)
        self._open()
        self._no_data.clear()
        self._dragging.clear()
        self._double_until.clear()
        self._slow_until = 0.0

    def when_open(self, a: str, b: str, work: Callable[[], None]) -> None:
        """Do this once that way lets something through again."""
        self._waiting.setdefault((a, b), []).append(work)

    def _release(self, way: Way) -> None:
        for work in self._waiting.pop(way, ()):
            self._clock.after(self.delay(way[0]), work)

    # ---- time ------------------------------------------------------------------------------

    def slow(self, seconds: float) -> None:
        """All messages take long for a while."""
        self._slow_until = self._clock.now + seconds

    def drag(self, name: str, seconds: float) -> None:
        """One node is slow for a while, and what it sends takes long."""
        self._dragging[name] = self._clock.now + seconds

    def drags(self, name: str) -> bool:
        """Whether that node is slow at present."""
        return bool(self._dragging) and self._dragging.get(name, 0.0) > self._clock.now

    def delay(self, sender: str) -> float:
        """Of one message, seconds."""
        if self._delay_s:
            return self._delay_s
        chance = self._clock.rng.random()
        if self._clock.now < self._slow_until or self.drags(sender):
            return 0.001 + 0.6 * chance
        which = int(5.0 * chance)
        return _DELAYS_S[which] if which < 4 else _LONGEST_S * (5.0 * chance - 4.0)

    def vain_s(self) -> float:
        """How long it takes to dial in vain, seconds."""
        return 2 * self._delay_s or self._clock.rng.uniform(0.0, 0.5)

    def near_s(self) -> float:
        """How long a message between a peer and its worker takes, seconds."""
        return self._delay_s / 10 or self._clock.rng.choice(_NEAR_S)

    def double(self, a: str, b: str, seconds: float) -> None:
        """For a while there are two connections: messages overtake others and come twice."""
        self._double_until[frozenset((a, b))] = self._clock.now + seconds

    def doubled(self, a: str, b: str) -> bool:
        """Whether there are two connections between these at present."""
        if not self._double_until:
            return False
        return self._double_until.get(frozenset((a, b)), 0.0) > self._clock.now

    # ---- who watches -----------------------------------------------------------------------

    def sent(self, kind: str, sender: str, to: str) -> None:
        """Tell the watchers what goes on its way."""
        for watch in tuple(self.watchers):
            watch(kind, sender, to)
