"""What was said about links, for one ordered pair of nodes or many: the latest word counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
Pair = tuple[str, str]
"""From which node to which."""
EVERY = "*"
"""In place of a node's name: all nodes."""


@dataclass(slots=True)
class Rules(Generic[T]):
    """What holds for ordered pairs of nodes, named or all."""

    default: T
    said: list[tuple[str, str, T]] = field(default_factory=list)
    """From, to (:data:`EVERY` for all), and what."""

    def say(self, source: str, target: str, what: T) -> None:
        """From now on."""
        self.said = [
            (s, t, w)
            for s, t, w in self.said
            if source not in (EVERY, s) or target not in (EVERY, t)
        ]
        self.said.append((source, target, what))

    def of(self, source: str, target: str) -> T:
        """What was said last."""
        for s, t, what in reversed(self.said):
            if s in (EVERY, source) and t in (EVERY, target):
                return what
        return self.default
