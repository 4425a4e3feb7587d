"""What the driver of a storm knows and no log tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.faults import Cont, Deed, Heal, Throttle


@dataclass(frozen=True, slots=True)
class Exit:
    """A worker process that ended."""

    code: int
    """Negative: the signal that killed it."""
    t: float
    """When it was seen, seconds since 1970."""
    words: str
    """What the node's processes printed last."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the storm ran on."""

    cpus: int
    load_median: float
    """Busy share of all processors, 0 to 1; sampled once a second."""
    load_max: float
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Facts:
    """One storm, from outside."""

    seed: int | None
    """None: the faults came from a file."""
    minutes: float
    """As asked for."""
    planned: int
    """Faults of the schedule, cures not counted."""
    not_survivable: str
    """Why a run need not live through the schedule, '' if it must."""
    shape: Shape
    """Of links that are not throttled."""
    began: float
    """The nodes had found each other, seconds since 1970."""
    over: float
    """The last fault was done and everything healed."""
    ending: str
    """Why it was over before its time, '' if it was not."""
    finished_itself: bool
    """Training came to its own end before the storm's."""
    missing: Sequence[str]
    """Nodes that ran and were not in, long after everything was healed."""
    patience_s: float
    """How long that was waited for."""
    problems: Sequence[str]
    """What went wrong with the end."""
    founders: Sequence[str]
    """Nodes at the begin, oldest first."""
    exits: Mapping[str, Exit]
    running: Mapping[str, str]
    """Nodes whose worker never ended by itself, and what they printed last."""
    carried: Sequence[tuple[str, str, int]]
    """From, to, and the bytes that arrived."""
    machine: Machine
    command: str
    """What repeats it."""


def is_cure(deed: Deed, shape: Shape) -> bool:
    """Whether this undoes a fault: a link is healed or as before, a node goes on.

    Args:
        deed: what is done.
        shape: of links that are not throttled.
    """
    match deed:
        case Heal() | Cont():
            return True
        case Throttle(shape=given):
            return given == shape
        case _:
            return False
