"""When members stood still, for how long, and why: as the logs give the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_chaos.storm.deeds import Done
from lightning_chaos.storm.lanes import Lane, State

_TOUCH_S = 0.1
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


def waits(lanes: Sequence[Lane], faults: Sequence[Done]) -> list[Wait]:
    """Every time that members stood still, the longest first.

    What several nodes stood still at the same time is one wait: they stood together.

    Args:
        lanes: of all nodes.
        faults: what was done.
    """
    gaps = sorted((a, b, lane.node) for lane in lanes for a, b in lane.still)
    groups: list[list[tuple[float, float, str]]] = []
    for gap in gaps:
        if groups and gap[0] < max(b for _, b, _ in groups[-1]) - _TOUCH_S:
            groups[-1].append(gap)
        else:
            groups.append([gap])
    found = [_wait(group, lanes, faults) for group in groups]
    return sorted(found, key=lambda wait: -wait.seconds)


def _wait(
    group: Sequence[tuple[float, float, str]], lanes: Sequence[Lane], faults: Sequence[Done]
) -> Wait:
    t, until, _ = max(group, key=lambda gap: gap[1] - gap[0])
    reasons: dict[str, None] = {}
    for lane in lanes:
        for span in lane.spans:
            if span.state in _TOLD and span.a < until and span.b > t:
                text = _TOLD[span.state].format(why=span.why)
                shared = span.state in _SHARED
                reasons[text if shared else f"{lane.node} {text}"] = None
    near = [f for f in faults if t - _RECENT_S <= f.t < until]
    if not reasons:  # what nobody answers, such as a short cut, is in no log
        reasons = {f"nothing in the logs, but: {fault.text}": None for fault in near}
    return Wait(
        t=t,
        seconds=until - t,
        nodes=tuple(sorted({node for _, _, node in group})),
        reasons=tuple(reasons),
        faults=tuple(fault.number for fault in near),
    )
