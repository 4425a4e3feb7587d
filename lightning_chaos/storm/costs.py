"""What every fault cost, what each kind costs, and why a time is not told."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.storm.deeds import Done
from lightning_chaos.testing.lab.faults import Join, Kill, Leave, Part, Throttle
from lightning_chaos.testing.lab.timings import Cost, cost_of, t_back_s, view_after

TIMES = ("detect_s", "view_s", "resume_s", "back_s", "still_s")
# Ordinary rounds are told from the latest ones; older ones would only be read again and again.
_LOOK_BACK_S = 60.0


@dataclass(frozen=True, slots=True)
class Priced:
    """A fault with its cost."""

    fault: Done
    cost: Cost
    whys: dict[str, str]
    """For every time that is None, why."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All faults of one kind."""

    kind: str
    count: int
    median: dict[str, float | None]
    most: dict[str, float | None]


def priced(events: Sequence[LogEvent], faults: Sequence[Done], end: float) -> list[Priced]:
    """The cost of each fault, looked at until the next one; who was out may come back later.

    Args:
        events: of all nodes, in order of time.
        faults: in order of time.
        end: of the last one's window, seconds.
    """
    rounds = [e for e in events if e.event == "round"]
    others = [e for e in events if e.event in ("view", "start", "freeze")]
    times = [e.t for e in rounds]
    found = []
    for place, fault in enumerate(faults):
        later = faults[place + 1 :]
        until = min([end, *(f.t for f in later[:1])])
        first = bisect_left(times, fault.t - _LOOK_BACK_S)
        near = rounds[first : bisect_left(times, until)]
        window = sorted([*near, *(e for e in others if e.t < until)], key=lambda e: e.t)
        unanswered = _unanswered(fault, window)
        out = set() if unanswered else _left_out(fault, window)
        cost = cost_of(fault.event, window, until, fault.cure)
        back_s = _back_s(fault, out, events, min([end, *(f.t for f in later if {*f.nodes} & out)]))
        if unanswered:
            cost = Cost(None, None, None, None, cost.still_s)
        elif isinstance(fault.deed, Leave | Join):
            # Nobody freezes for what is planned; a freeze then is another fault's.
            cost = replace(cost, detect_s=None, back_s=None)
        else:
            cost = replace(cost, back_s=back_s)
        missing = [name for name in TIMES if getattr(cost, name) is None]
        whys = {name: _why(name, fault, cost, unanswered, bool(out)) for name in missing}
        found.append(Priced(fault, cost, whys))
    return found


def summed_up(found: Sequence[Priced]) -> list[Summary]:
    """Per kind, the commonest first: how many, and of each time the median and the most."""
    kinds: dict[str, list[Cost]] = {}
    for one in found:
        kinds.setdefault(one.fault.kind, []).append(one.cost)
    return [
        Summary(
            kind,
            len(costs),
            {name: _of(statistics.median, costs, name) for name in TIMES},
            {name: _of(max, costs, name) for name in TIMES},
        )
        for kind, costs in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _of(fold: Callable[[list[float]], float], costs: Sequence[Cost], name: str) -> float | None:
    told = [value for cost in costs if (value := getattr(cost, name)) is not None]
    return fold(told) if told else None


def _members_before(fault: Done, window: Sequence[LogEvent]) -> set[str]:
    used = [e for e in window if e.event == "view" and e.t < fault.t]
    newest = max(used, key=lambda e: int(e["epoch"]), default=None)
    return set() if newest is None else set(newest["members"])


def _unanswered(fault: Done, window: Sequence[LogEvent]) -> str:
    """Why no view can answer the fault, '' if one can."""
    if isinstance(fault.deed, Throttle):
        return "a slower link is no loss: no view answers it"
    apart = set(fault.nodes) - _members_before(fault, window)
    if apart and not isinstance(fault.deed, Join):
        return "who was hit was no member then: no view answers it"
    return ""


def _left_out(fault: Done, window: Sequence[LogEvent]) -> set[str]:
    """Who may come back: the node it met, unless for good; of a link, whom a view left out."""
    match fault.deed:
        case Kill(node, Part.PEER):
            return {node}
        case Kill() | Leave() | Join():
            return set()
    if len(fault.nodes) < 2:
        return {*fault.nodes}
    view = view_after(fault.event, window)
    lost = set() if view is None else _members_before(fault, window) - set(view["members"])
    return lost & set(fault.nodes)


def _back_s(fault: Done, out: set[str], events: Sequence[LogEvent], until: float) -> float | None:
    window = [e for e in events if e.t < until and e.event in ("view", "round")]
    backs = [t_back_s(node, fault.event, fault.cure or fault.event, window) for node in out]
    return max((b for b in backs if b is not None), default=None)


def _why(name: str, fault: Done, cost: Cost, unanswered: str, left_out: bool) -> str:
    """Why that time is None."""
    match name, fault.deed:
        case "still_s", _:
            return "no member told a round before the next fault"
        case "back_s", Kill(part=part) if part is not Part.PEER:
            return "its worker is gone for good"
        case "back_s", Leave():
            return "it left for good"
        case "back_s", Join():
            return "it comes for the first time"
        case "detect_s", Leave() | Join():
            return "planned: nobody freezes"
        case _ if unanswered:
            return unanswered
        case "detect_s", _:
            return "nobody froze before the next fault"
        case "back_s", _ if not left_out:
            return "nobody was left out"
        case "back_s", _:
            return "not back before it was hit again, or before the end"
        case "resume_s", _ if cost.view_s is not None:
            return "not all had a round before the next fault"
        case _:
            return "no view answered it before the next fault"
