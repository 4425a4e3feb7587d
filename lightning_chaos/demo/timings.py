"""How long each event of the demo took, and how long it made anyone stand still."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_chaos.monitor.runlog import LogEvent


@dataclass(frozen=True, slots=True)
class Deed:
    """Something the driver did to a node."""

    kind: str
    """``kill``, ``leave`` or ``stop``."""
    node: str
    t: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One event of the demo."""

    what: str
    node: str
    took_s: float | None
    """Seconds from begin to end, None if the end is in no log."""
    meaning: str
    """From what to what."""
    still_s: float | None
    """Longest time that any other member stood still for it, in seconds."""


def median_round_s(events: Sequence[LogEvent]) -> float:
    """Seconds of an ordinary round; 0 when there was none."""
    times = [float(e["round_s"]) for e in events if e.event == "round" and e["round_s"]]
    return statistics.median(times) if times else 0.0


def timings(events: Sequence[LogEvent], deeds: Sequence[Deed], newcomer: str) -> list[Timing]:
    """The demo's events in the order in which they happened.

    Args:
        events: all logs, in order of time.
        deeds: what the driver did.
        newcomer: node that joined the run.
    """
    found = [_join(events, newcomer)]
    for deed, until in zip(deeds, [*(d.t for d in deeds[1:]), math.inf], strict=False):
        window = [e for e in events if deed.t <= e.t < until and e.node != deed.node]
        if deed.kind == "kill":
            found.append(_kill(window, deed, median_round_s(events)))
        elif deed.kind == "leave":
            left = next((e.t for e in events if e.event == "leave" and e.node == deed.node), None)
            found.append(_leave(window, deed, median_round_s(events), left))
    return found


def _join(events: Sequence[LogEvent], node: str) -> Timing:
    asked = _asked(events, node)
    admitted = next(
        (e.t for e in events if e.node == node and _is_view(e) and node in e["members"]),
        None,
    )
    holds = [float(e["seconds"]) for e in events if e.event == "hold" and node in e["serving"]]
    took = admitted - asked if admitted is not None and asked is not None else None
    return Timing("join", node, took, "asks → admitted", max(holds, default=None))


def _asked(events: Sequence[LogEvent], node: str) -> float | None:
    """When it asked: it stood by until the run had begun the round it waited for."""
    asks = next((e for e in events if e.node == node and e.event == "asks"), None)
    if asks is None:
        return None
    # That a round is stable is written when the next one has begun everywhere.
    begun = (e.t for e in events if e.event == "round" and e["round"] >= asks["round"] - 1)
    return max(asks.t, next(begun, asks.t))


def _kill(window: Sequence[LogEvent], deed: Deed, round_s: float) -> Timing:
    """The next stable round of the slowest survivor; an ordinary round is not the kill's doing."""
    view = _view_without(window, deed.node)
    firsts: dict[str, float] = {}
    for event in window:
        if view and event.event == "round" and event["epoch"] >= view["epoch"]:
            firsts.setdefault(event.node, event.t)
    took = max(0.0, max(firsts.values()) - deed.t - round_s) if firsts else None
    freezes = [float(e["seconds"]) for e in window if e.event == "freeze"]
    return Timing(
        "kill", deed.node, took, "SIGKILL → next stable round", max(freezes, default=None)
    )


def _leave(window: Sequence[LogEvent], deed: Deed, round_s: float, left: float | None) -> Timing:
    """Nobody is meant to wait for a leave: by how much the rounds at the switch were longer."""
    view = _view_without(window, deed.node)
    near = [
        float(e["round_s"])
        for e in window
        if view and e.event == "round" and abs(e["round"] - view["switch"]) <= 1
    ]
    still = max(0.0, max(near) - round_s) if near else None
    took = left - deed.t if left is not None else None
    return Timing("leave", deed.node, took, "SIGTERM → out of the run", still)


def _is_view(event: LogEvent) -> bool:
    return event.event == "view"


def _view_without(window: Sequence[LogEvent], node: str) -> LogEvent | None:
    return next((e for e in window if _is_view(e) and node not in e["members"]), None)
