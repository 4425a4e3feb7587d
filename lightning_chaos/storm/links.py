"""What the links carried, and when they were cut or throttled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_chaos.storm.deeds import Done
from lightning_chaos.testing.lab.faults import CutLink, CutOneWay, Throttle


@dataclass(frozen=True, slots=True)
class Trouble:
    """A link that was cut or throttled for a while."""

    link: str
    kind: str
    """``cut`` or ``throttled``."""
    a: float
    b: float
    text: str


@dataclass(frozen=True, slots=True)
class Links:
    """Bytes per ordered pair of nodes, and troubles in order of time."""

    nodes: tuple[str, ...]
    carried: dict[str, dict[str, int]]
    """From, to, bytes; 0 for a pair that never met."""
    troubles: tuple[Trouble, ...]

    @property
    def most(self) -> int:
        """Bytes of the pair that carried most."""
        return max((n for row in self.carried.values() for n in row.values()), default=0)

    @property
    def total(self) -> int:
        """Bytes of all pairs."""
        return sum(n for row in self.carried.values() for n in row.values())


def links(
    nodes: Sequence[str],
    carried: Sequence[tuple[str, str, int]],
    faults: Sequence[Done],
    end: float,
) -> Links:
    """Everything about links.

    Args:
        nodes: all that were started.
        carried: from, to, bytes.
        faults: what was done.
        end: when a trouble without a cure stops being told, seconds.
    """
    counts = {a: dict.fromkeys(nodes, 0) for a in nodes}
    for a, b, count in carried:
        counts.setdefault(a, {})[b] = count
    troubles = []
    for fault in faults:
        until = end if fault.cure is None else fault.cure.t
        match fault.deed:
            case CutLink(a, b):
                one, other = sorted((a, b))
                troubles.append(Trouble(f"{one} – {other}", "cut", fault.t, until, fault.text))
            case CutOneWay(a, b):
                troubles.append(Trouble(f"{a} → {b}", "cut", fault.t, until, fault.text))
            case Throttle(a, b):
                one, other = sorted((a, b))
                told = Trouble(f"{one} – {other}", "throttled", fault.t, until, fault.text)
                troubles.append(told)
            case _:
                pass
    return Links(tuple(nodes), counts, tuple(troubles))
