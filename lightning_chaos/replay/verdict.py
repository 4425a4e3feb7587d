"""What came out of a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """The run's end beside the replay's."""

    rounds: int
    samples: int
    members: Sequence[str]
    """Nodes whose parts were played, in order of their first round."""
    run: str
    """Digest of the run's final state."""
    replay: str
    """Digest of the replay's."""
    first_difference: int | None
    """First round whose sums have another mark; None if all are equal."""

    @property
    def equal(self) -> bool:
        """Bit for bit."""
        return self.run == self.replay

    def lines(self) -> list[str]:
        """For people."""
        told = [
            f"{self.rounds} rounds of {len(self.members)} nodes ({', '.join(self.members)}), "
            f"{self.samples} samples",
            f"run     {self.run}",
            f"replay  {self.replay or '(none)'}",
        ]
        if self.equal:
            return [*told, "equal, bit for bit"]
        where = (
            "all rounds' sums are alike as far as they are marked; what differs is elsewhere"
            if self.first_difference is None
            else f"the sums differ first in round {self.first_difference}"
        )
        return [*told, f"NOT EQUAL; {where}"]


class ReplayDone(SystemExit):
    """Ends the script when its fit has been replayed.

    Args:
        verdict: what came out; the exit code is 0 if all is equal, else 1.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(0 if verdict.equal else 1)
        self.verdict = verdict
