"""How far ahead a worker may run without asking (design §4, planned changes)."""

from __future__ import annotations

import math

AHEAD_S = 0.020


class Permits:
    """Grants of one peer to its worker: all rounds up to :attr:`granted`.

    A planned change names a switch round T; the peer agrees only while it has granted nothing
    from T on, and then grants nothing from T on until the change is decided.
    """

    def __init__(self) -> None:
        self.granted = -1
        self.begun = -1
        self._begun_at = 0.0
        self._round_s = 1.0

    def begin(self, now: float, round_: int) -> None:
        """The worker has started this round."""
        if round_ > self.begun >= 0 and self._begun_at:
            sample = (now - self._begun_at) / (round_ - self.begun)
            self._round_s += 0.3 * (sample - self._round_s)
        self.begun = max(self.begun, round_)
        self._begun_at = now

    def enter(self, round_: int) -> None:
        """The worker joins at the begin of this round: all before it are behind it."""
        self.begun = max(self.begun, round_ - 1)
        self.granted = max(self.granted, round_ - 1)

    def extend(self, limit: int | None) -> int | None:
        """Grant what may be granted below ``limit``; the new bound, None if nothing is new."""
        ahead = max(1, math.ceil(AHEAD_S / max(self._round_s, 1e-4)))
        upto = self.begun + ahead
        if limit is not None:
            upto = min(upto, limit - 1)
        if upto <= self.granted:
            return None
        self.granted = upto
        return upto
