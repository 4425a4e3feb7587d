"""Where every node's time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.storm.lanes import Lane, State

_LONG = (State.STANDING, State.FROZEN, State.STOPPED)


@dataclass(frozen=True, slots=True)
class Idle:
    """Seconds of one node, which add up to its life."""

    node: str
    life_s: float
    parts: dict[str, float]
    """``working``, ``waiting`` (on others, in a reduction), and every state but ``member``."""


def idle(events: Sequence[LogEvent], lanes: Sequence[Lane]) -> list[Idle]:
    """What each node's life consists of.

    A member's time in reductions (``wait_s`` of its rounds) includes the long ones in which it
    stood still, was frozen or stopped; those are told apart.
    """
    waited: dict[str, float] = {}
    for e in events:
        if e.event == "round" and e.t >= 0:
            waited[e.node] = waited.get(e.node, 0.0) + float(e["wait_s"])
    return [_of(lane, waited.get(lane.node, 0.0)) for lane in lanes]


def _of(lane: Lane, waited: float) -> Idle:
    member = lane.seconds(State.MEMBER)
    waiting = min(member, max(0.0, waited - lane.seconds(*_LONG)))
    parts = {"working": member - waiting, "waiting": waiting}
    parts |= {str(s): lane.seconds(s) for s in State if s is not State.MEMBER}
    return Idle(lane.node, sum(parts.values()), parts)
