"""Everything that decides one run, as a value: it repeats exactly, and fits on a line."""

from __future__ import annotations

from dataclasses import dataclass, fields

FAULTY_S = 7.0
"""Faults strike before this (virtual seconds); after it everything works again."""


@dataclass(frozen=True, repr=False)
class Fault:
    """Something that happens to a run."""

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

    def __repr__(self) -> str:
        given = [repr(self.at), repr(self.kind), repr(self.a)]
        for field in fields(self)[3:]:
            value = getattr(self, field.name)
            if value != field.default:
                given.append(f"{field.name}={value!r}")
        return f"Fault({', '.join(given)})"


@dataclass(frozen=True)
class Case:
    """One run of the simulator."""

    seed: int
    """Decides delays, the order of things that happen at once, and durations."""
    names: str = "abc"
    """One letter for each node; they start in this order."""
    faults: tuple[Fault, ...] = ()
    same_machine: bool = False
    """Peers see when the process of another one is gone."""
    ends: bool = False
    """In the end the run is told to stop."""
    alone: bool = False
    """A side without a quorum goes on alone (``quorum="any"``)."""
