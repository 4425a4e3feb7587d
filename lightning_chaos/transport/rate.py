"""How fast a link is, learned from what it carries anyway.

A receiver that knows a transfer to be under way counts what arrives and for how long.  Left out
are the request's way to the sender (the time to the first bytes) and TCP's slow start: time goes
in windows of a round trip, and as long as these grow by a quarter nothing is counted but the
last one (the end of start-up in BBR: Cardwell et al., *BBR: congestion-based congestion control*,
2016).  From then on old time counts less and less, so that the figure follows the link.

Whether the link or the sender was the narrow place cannot be told from here: begin and end with
what the sender can send at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_chaos.errors import ConfigError

LEAST_BYTES = 1_000_000
LEAST_BUSY_S = 0.5
LEAST_ROUND_TRIPS = 20
"""An estimate of less than all three of these is a lower bound."""
_SHORTEST_WINDOW_S = 0.01
_GROWTH = 1.25
_FLAT_WINDOWS = 2
_CALM_S = 0.2
"""After a silence longer than that, and than two round trips, TCP may start slowly again."""
_MEMORY_S = 1.0
_PAUSES = 10
"""So much less than time under way counts time between: a link that carries little is still
followed within seconds."""


@dataclass(frozen=True, slots=True)
class RateEstimate:
    """What a link carries to us, as far as is known.

    Raises:
        ConfigError: a rate that is not positive and finite.
    """

    bytes_per_s: float
    lower_bound: bool
    """Too little was seen to say so: the link may well carry more."""
    at: float
    """When what it is made of came, seconds on the clock of who feeds it."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bytes_per_s) and self.bytes_per_s > 0):
            raise ConfigError(
                f"{self.bytes_per_s} bytes/s is not a rate; it must be positive and finite"
            )


class PassiveRate:
    """The rate of one link in one direction; time is an argument.

    Args:
        rtt_s: round trip of the link, seconds; 0 if it is not known.

    Raises:
        ConfigError: a round trip that is negative or not finite.
    """

    def __init__(self, rtt_s: float = 0.0) -> None:
        self.know_rtt(rtt_s)
        self._under_way = False
        self._last_t: float | None = None
        """Of the last bytes of the transfer under way."""
        self._heard_t = -math.inf
        """Of the last bytes at all."""
        self._fed_t = -math.inf
        """Of the last bytes of any transfer."""
        self._counted = _Sum()
        """What the estimate is made of; fades with time."""
        self._counted_t = -math.inf
        """When that was added to last."""
        self._seen = _Sum()
        """The same without fading."""
        self._start_slowly()

    def know_rtt(self, rtt_s: float) -> None:
        """The round trip is this from now on; what was seen so far still counts.

        Raises:
            ConfigError: it is negative or not finite.
        """
        if not (math.isfinite(rtt_s) and rtt_s >= 0):
            raise ConfigError(f"a round trip of {rtt_s} s; it must be finite and not negative")
        self._window_s = max(rtt_s, _SHORTEST_WINDOW_S)
        self._calm_s = max(_CALM_S, 2 * rtt_s)
        self._memory_s = max(_MEMORY_S, LEAST_ROUND_TRIPS * rtt_s)
        self._least_busy_s = max(LEAST_BUSY_S, LEAST_ROUND_TRIPS * rtt_s)

    def forget(self) -> None:
        """The link has changed: what was seen so far says nothing any more."""
        self._counted, self._seen = _Sum(), _Sum()
        self._start_slowly()

    def begin(self) -> None:
        """Bytes are asked for, or announced; calls within a transfer change nothing."""
        if not self._under_way:
            self._under_way, self._last_t = True, None

    def end(self) -> None:
        """Nothing is under way any more; what comes until the next begin does not count."""
        self._under_way = False

    def received(self, now: float, size: int) -> None:
        """So many bytes came.

        Args:
            now: seconds, never going back.
            size: bytes.
        """
        silent_s, self._heard_t = now - self._heard_t, now
        if not self._under_way:
            return
        last, self._last_t = self._last_t, now
        self._fed_t = now
        if last is None:
            # these came for how long nobody knows: they only start the clock
            if silent_s > self._calm_s:
                self._start_slowly()
            return
        self._window.add(size, now - last)
        if self._window.seconds >= self._window_s:
            self._close_window(now)

    @property
    def estimate(self) -> RateEstimate | None:
        """What is known by now, None if nothing."""
        rate = self._counted.rate
        at = self._counted_t if rate else self._fed_t
        rate = rate or self._start.rate or self._window.rate
        if not rate:
            return None
        enough = self._seen.bytes >= LEAST_BYTES and self._seen.seconds >= self._least_busy_s
        return RateEstimate(rate, lower_bound=not enough, at=at)

    def _start_slowly(self) -> None:
        self._window = _Sum()
        self._start = _Sum()
        """In slow start: since the last window that had grown, with that one."""
        self._best = 0.0
        """Fastest window of this slow start, bytes per second."""
        self._flat = 0
        """Windows in a row that have not grown; after a few, slow start is over."""

    def _close_window(self, now: float) -> None:
        window, self._window = self._window, _Sum()
        if self._flat == _FLAT_WINDOWS:
            self._count(now, window)
            return
        if window.rate > _GROWTH * self._best:
            self._start, self._flat = window, 0
        else:
            self._start.add(window.bytes, window.seconds)
            self._flat += 1
        self._best = max(self._best, window.rate)
        if self._flat == _FLAT_WINDOWS:
            self._count(now, self._start)

    def _count(self, now: float, some: _Sum) -> None:
        passed_s, self._counted_t = now - self._counted_t, now
        aged_s = max(some.seconds, passed_s / _PAUSES)
        self._counted.fade(math.exp(-aged_s / self._memory_s))
        self._counted.add(some.bytes, some.seconds)
        self._seen.add(some.bytes, some.seconds)


@dataclass(slots=True)
class _Sum:
    """Bytes, and how long they took."""

    bytes: float = 0.0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Bytes per second, 0 if there is nothing."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0

    def add(self, size: float, seconds: float) -> None:
        self.bytes += size
        self.seconds += seconds

    def fade(self, factor: float) -> None:
        self.bytes *= factor
        self.seconds *= factor
