"""A sender's speed limit: so many bytes per second on one link."""

from __future__ import annotations

from collections.abc import Callable


class Pacer:
    """Says when the next bytes may leave so that a link carries ``rate`` on average.

    Model: a virtual transmitter that is busy ``size / rate`` seconds per message.  After an
    idle time it may run ahead by ``burst_s`` seconds, never more.

    Args:
        rate_bytes_per_s: None or 0 for no limit.
        clock: seconds, monotonic.
        burst_s: seconds of traffic that may leave at once after an idle time.
    """

    def __init__(
        self,
        rate_bytes_per_s: float | None,
        clock: Callable[[], float],
        burst_s: float = 0.002,
    ) -> None:
        self._rate = rate_bytes_per_s or 0.0
        self._clock = clock
        self._burst_s = burst_s
        self._free_at = clock()

    @property
    def limited(self) -> bool:
        """False when everything may leave at once."""
        return self._rate > 0

    def reserve(self, size: int) -> float:
        """Book ``size`` bytes; returns the seconds to wait before sending them."""
        if not self.limited:
            return 0.0
        now = self._clock()
        start = max(self._free_at, now - self._burst_s)
        self._free_at = start + size / self._rate
        return max(0.0, start - now)
