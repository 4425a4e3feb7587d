"""Everything that decides one run, as a value: it repeats exactly, and fits on a line."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import ClassVar

FAULTY_S = 7.0
"""Faults strike before this (virtual seconds), unless a case says otherwise."""


class Line:
    """A value that is printed as a call that makes it, without what it leaves as it is."""

    PLAIN: ClassVar[int] = 0
    """So many fields are written without their names."""

    def __repr__(self) -> str:
        given = []
        for i, field in enumerate(fields(self)):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if i < self.PLAIN:
                given.append(repr(value))
            elif field.default is MISSING or value != field.default:
                given.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(given)})"


@dataclass(frozen=True, repr=False)
class Fault(Line):
    """Something that happens to a run."""

    PLAIN = 3
    at: float
    """When, virtual seconds; or from when on it waits for :attr:`after`."""
    kind: str
    """One of :data:`~.faults.KINDS`."""
    a: str
    """Name of the node that it strikes."""
    b: str = ""
    """The other end, for faults of a path."""
    seconds: float = 1.0
    """How long it lasts, if it ends."""
    after: str = ""
    """Class name of a message: it strikes when one has just been sent, the sender or receiver."""
    count: int = 1
    """Which message of that kind, counted from :attr:`at` on."""


@dataclass(frozen=True, repr=False)
class Case(Line):
    """One run of the simulator."""

    PLAIN = 2
    seed: int
    """Decides delays, the order of things that happen at once, and durations."""
    names: str | int = "abc"
    """One letter for each node, or how many there are (``n1``, ``n2``, …)."""
    faults: tuple[Fault, ...] = ()
    same_machine: bool = False
    """Peers see when the process of another one is gone."""
    ends: bool = False
    """In the end the run is told to stop."""
    founders: int = 0
    """So many, the first ones, begin as members of one view, the others when they are started;
    0: all are started one after the other, and join."""
    unlinked: tuple[tuple[str, str], ...] = ()
    """Between these there is never any path."""
    skew: float = 0.0
    """Clocks of nodes run faster or slower by up to so much (0.1: a tenth)."""
    quiet_at: float = FAULTY_S
    """Nothing strikes after this, and everything works again; virtual seconds."""
    returns: bool = True
    """In the end all nodes that are gone are started again."""
    timeout_s: float = 1.0
    """Longest silence tolerated between peers, virtual seconds."""
    pace: float = 1.0
    """So many times as long as usual a round computes."""
    delay_s: float = 0.0
    """All messages between nodes take this long, virtual seconds; 0: as chance has it."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes, in the order in which they start."""
        if isinstance(self.names, str):
            return tuple(self.names)
        return tuple(f"n{i}" for i in range(1, self.names + 1))
