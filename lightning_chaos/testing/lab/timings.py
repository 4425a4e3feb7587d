"""What a fault cost: exact definitions, over the ground truth and the nodes' run logs.

All take events of one clock (one machine) in seconds since 1970, in order of time:

* ``fault``: an event ``fault`` of the ground truth (``director.TRUTH``);
* ``events``: the run logs of all nodes, merged.

A node *hit* by a fault is the one killed, stopped or sent away; a link's fault hits nobody until
a view has left somebody out.  An ordinary round is the median of the rounds stable before the
fault: it would have passed anyway and is nobody's cost.  A time that did not come to pass, or
that no log shows, is None, never a guess.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lightning_chaos.monitor.runlog import LogEvent

_RECENT_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """What one fault cost, in seconds; None for what did not come to pass."""

    detect_s: float | None
    view_s: float | None
    resume_s: float | None
    back_s: float | None
    still_s: float | None
    """The longest stand-still of a member that was not hit."""


def cost_of(
    fault: LogEvent, events: Sequence[LogEvent], until: float, cure: LogEvent | None = None
) -> Cost:
    """Everything below at once.

    Args:
        fault: what was done.
        events: of all nodes.
        until: when to stop looking, say at the next fault.
        cure: what let the node that was hit come back, None for the fault itself.
    """
    window = [e for e in events if e.t < until]
    others = _members_at(fault.t, window) - hit_by(fault)
    stills = [stand_still_s(node, window, fault.t, until) for node in others]
    backs = [t_back_s(node, fault, cure or fault, window) for node in hit_by(fault)]
    return Cost(
        detect_s=t_detect_s(fault, window),
        view_s=t_view_s(fault, window),
        resume_s=t_resume_s(fault, window),
        back_s=max((b for b in backs if b is not None), default=None),
        still_s=max((s for s in stills if s is not None), default=None),
    )


def hit_by(fault: LogEvent) -> frozenset[str]:
    """The node that was killed, stopped or sent away; nobody for a link's fault."""
    node = fault.get("hit") if fault.get("do") in ("kill", "stop", "leave") else None
    return frozenset() if node is None else frozenset({str(node)})


def ordinary_round_s(events: Sequence[LogEvent], before: float) -> float:
    """Median duration of the last 200 rounds told as stable before that time, 0 without any.

    Every member tells every round; the median takes them all alike.
    """
    times = [float(e["round_s"]) for e in events if e.event == "round" and e.t < before]
    return statistics.median(times[-_RECENT_ROUNDS:]) if times else 0.0


def t_detect_s(fault: LogEvent, events: Sequence[LogEvent]) -> float | None:
    """T_detect: from the fault until the first worker that was not hit stands frozen for it.

    This is the first moment at which the run does something about the fault.  The begin of a
    freeze is the time of its event less its ``seconds``.  None for planned changes (leave, join):
    nobody freezes.
    """
    begins = [
        e.t - float(e["seconds"])
        for e in events
        if e.event == "freeze" and e.node not in hit_by(fault)
    ]
    return min((t - fault.t for t in begins if t >= fault.t), default=None)


def t_view_s(fault: LogEvent, events: Sequence[LogEvent]) -> float | None:
    """T_view: from the fault until the last of those who stay uses the view that answers it.

    See :func:`view_after` for that view.  Who logs that he uses it, stays.
    """
    used = _uses(view_after(fault, events), events)
    return max(used.values()) - fault.t if used else None


def t_resume_s(fault: LogEvent, events: Sequence[LogEvent]) -> float | None:
    """T_resume: from the fault until the last of those who stay tells of a stable round under
    the view that answers it (or a later one), less one ordinary round, and never below 0.

    None also if one of them tells of no such round.
    """
    view = view_after(fault, events)
    if view is None:
        return None
    firsts: dict[str, float] = {}
    for e in events:
        if e.event == "round" and e.t >= fault.t and e["epoch"] >= view["epoch"]:
            firsts.setdefault(e.node, e.t)
    stay = _uses(view, events).keys()
    if not stay or stay - firsts.keys():
        return None
    last = max(firsts[node] for node in stay)
    return max(0.0, last - fault.t - ordinary_round_s(events, fault.t))


def t_back_s(
    node: str, fault: LogEvent, cure: LogEvent, events: Sequence[LogEvent]
) -> float | None:
    """T_back: from the cure until the node tells of a stable round as a member.

    The cure is what allows it to take part again: SIGCONT, a healed link, or the fault itself
    where nothing more is needed (a killed peer, whose worker starts another).  If a view after
    the fault left the node out, the round must be one of the first view that has it again, or of
    a later one.
    """
    views = [e for e in events if e.event == "view" and e.t >= fault.t]
    out = min((e["epoch"] for e in views if node not in e["members"]), default=None)
    least = 0
    if out is not None:
        back = [e["epoch"] for e in views if node in e["members"] and e["epoch"] > out]
        if not back:
            return None
        least = min(back)
    for e in events:
        told = e.event == "round" and e.node == node
        if told and e.t >= cure.t and e["epoch"] >= least:
            return e.t - cure.t
    return None


def stand_still_s(node: str, events: Sequence[LogEvent], begin: float, end: float) -> float | None:
    """Stand-still: the longest time in which the node had no stable round, less an ordinary one.

    Looked at are the times between two consecutive stable rounds of the node that overlap
    ``begin`` to ``end``, and the one from its last round to ``end``.  Never below 0; None if the
    node tells of no round before ``end``.
    """
    told = [e.t for e in events if e.event == "round" and e.node == node and e.t < end]
    gaps = [b - a for a, b in pairwise([*told, end]) if b > begin]
    if not gaps:
        return None
    return max(0.0, max(gaps) - ordinary_round_s(events, begin))


def view_after(fault: LogEvent, events: Sequence[LogEvent]) -> LogEvent | None:
    """The view that answers a fault, as the first to use it told; None if there is none.

    For a node that was hit: the first view used after the fault that lacks that incarnation of
    it.  For a link: the first that lacks one of the link's two nodes, or else the first at all.
    For a node that joins: the first that has it as a member.
    """
    later = [e for e in events if e.event == "view" and e.t >= fault.t]
    hit = hit_by(fault)
    if hit:
        (node,) = hit
        before = _incarnations(node, fault.t, events)
        found = [e for e in later if e.node != node and not before & set(e["uids"])]
    elif fault.get("do") == "join":
        found = [e for e in later if fault["hit"] in e["members"]]
    else:
        ends = {fault.get("a"), fault.get("b")}
        found = [e for e in later if ends - set(e["members"])] or later
    return min(found, key=lambda e: (e["epoch"], e.t), default=None)


def _members_at(t: float, events: Sequence[LogEvent]) -> frozenset[str]:
    """Members of the newest view that anybody used by then."""
    used = [e for e in events if e.event == "view" and e.t < t]
    newest = max(used, key=lambda e: int(e["epoch"]), default=None)
    return frozenset() if newest is None else frozenset(newest["members"])


def _incarnations(node: str, t: float, events: Sequence[LogEvent]) -> set[str]:
    """Uids that the node had up to that time."""
    return {str(e["uid"]) for e in events if e.event == "start" and e.node == node and e.t <= t}


def _uses(view: LogEvent | None, events: Sequence[LogEvent]) -> dict[str, float]:
    """When each member began to use that view, as far as they tell."""
    if view is None:
        return {}
    return {
        e.node: e.t
        for e in events
        if e.event == "view" and e["epoch"] == view["epoch"] and e.node in view["members"]
    }
