"""When members stood still, for how long, and why: as the logs give the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.storm.deeds import Done
from lightning_chaos.storm.lanes import Lane, State
from lightning_chaos.testing.lab.timings import ordinary_round_s

LEAST_S = 0.25
_TIMES_ORDINARY = 5.0
_RECENT_S = 3.0
_TOLD = {
    State.FROZEN: "frozen: {why}",
    State.HOLDING: "held still: {why}",
    State.PULLING: "pulled {why}",
    State.STOPPED: "stopped by SIGSTOP",
    State.OUT: "out of the run",
}
# The same at every member; what comes over one node alone is told with its name.
_SHARED = (State.FROZEN, State.HOLDING)


@dataclass(frozen=True, slots=True)
class Wait:
    """A time without a stable round."""

    t: float
    seconds: float
    """Of the node that waited longest."""
    nodes: tuple[str, ...]
    reasons: tuple[str, ...]
    faults: tuple[int, ...]
    """Numbers of those that fell into it or just before it."""


def waits(
    events: Sequence[LogEvent], lanes: Sequence[Lane], faults: Sequence[Done], end: float
) -> list[Wait]:
    """Every wait of a member, the longest first; the same wait of several nodes is one.

    A wait is a time between two stable rounds of a node of more than five ordinary rounds (and a
    quarter of a second) in which it ran and was not itself stopped or out of the run.

    Args:
        events: of all nodes, in order of time.
        lanes: of all nodes.
        faults: what was done.
        end: nothing is told after it.
    """
    least = max(LEAST_S, _TIMES_ORDINARY * ordinary_round_s(events, end))
    gaps = sorted(gap for lane in lanes for gap in _gaps(lane, events, end) if gap[1] > least)
    groups: list[list[tuple[float, float, str]]] = []
    for gap in gaps:
        together = groups and gap[0] < max(t + s for t, s, _ in groups[-1]) - least / 2
        groups[-1].append(gap) if together else groups.append([gap])
    found = [_wait(group, lanes, faults) for group in groups]
    return sorted(found, key=lambda wait: -wait.seconds)


def _gaps(lane: Lane, events: Sequence[LogEvent], end: float) -> list[tuple[float, float, str]]:
    told = [e.t for e in events if e.event == "round" and e.node == lane.node and 0 <= e.t <= end]
    elsewhere = [s for s in lane.spans if s.state in (State.OUT, State.STOPPED, State.STARTING)]
    return [
        (a, b - a, lane.node)
        for a, b in pairwise(told)
        if not any(s.a < b and s.b > a for s in elsewhere)
    ]


def _wait(
    group: Sequence[tuple[float, float, str]], lanes: Sequence[Lane], faults: Sequence[Done]
) -> Wait:
    t, seconds, _ = max(group, key=lambda gap: gap[1])
    until = t + seconds
    reasons: dict[str, None] = {}
    for lane in lanes:
        for span in lane.spans:
            if span.state in _TOLD and span.a < until and span.b > t:
                text = _TOLD[span.state].format(why=span.why)
                shared = span.state in _SHARED
                reasons[text if shared else f"{lane.node} {text}"] = None
    return Wait(
        t=t,
        seconds=seconds,
        nodes=tuple(sorted({node for _, _, node in group})),
        reasons=tuple(reasons),
        faults=tuple(f.number for f in faults if t - _RECENT_S <= f.t < until),
    )
