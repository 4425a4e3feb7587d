"""What came of a run."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_chaos.errors import ChaosError
from lightning_chaos.testing.simulator.case import Case


class Violation(ChaosError):
    """Something happened in a simulated run that never may; the message says what, and to whom."""


class Stuck(Violation):
    """Everything works, and yet somebody does not get on."""


class RunLost(Exception):
    """Nobody is left who holds the state: nothing remains to be checked."""


@dataclass(frozen=True)
class Outcome:
    """A run that was simulated."""

    case: Case
    problem: str
    """The promise that was broken, '' if all were kept."""
    events: int
    """So many things happened."""
    story: tuple[str, ...]
    """What happened, a line each with its virtual time; empty unless it was asked for."""

    @property
    def kind(self) -> str:
        """The problem without its particulars, to tell one from another."""
        words = (word for word in self.problem.split() if not any(c in word for c in "0123456789/"))
        return " ".join(list(words)[:6])

    def __str__(self) -> str:
        return "\n".join([*self.story, repr(self.case), self.problem or "all promises kept"])
