"""What a peer waits for, for people, and how often it says so."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_REPEAT_S = 10.0
"""A wait is told when it begins, after so long, and each time that its length has doubled."""


@dataclass(slots=True)
class Wait:
    """One wait, from its begin to its end; what it is for may change meanwhile."""

    reason: str
    since: float
    """Seconds, on the peer's clock."""
    hint: str = ""
    """What could be done about it, '' for nothing."""
    _told: str = ""
    _again_at: float = 0.0

    def text(self, now: float) -> str:
        """The whole story."""
        seconds = now - self.since
        lasting = f" since {seconds:.0f} s" if seconds >= 1 else ""
        return f"{self.reason}{lasting}{f'; {self.hint}' if self.hint else ''}"

    def due(self, now: float) -> bool:
        """Whether it should be told now; True once for each time."""
        if self.reason == self._told and now < self._again_at:
            return False
        self._told = self.reason
        self._again_at = self.since + max(FIRST_REPEAT_S, 2 * (now - self.since))
        return True
