"""What every node was doing at every moment, told from the logs of all."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.storm.deeds import Done
from lightning_chaos.testing.lab.faults import Part, Stop
from lightning_chaos.testing.lab.timings import ordinary_round_s


class State(enum.StrEnum):
    """What a node is doing; of two at once, the later one here is told."""

    STARTING = "starting"
    MEMBER = "member"
    STANDING = "standing still"
    OUT = "out"
    HOLDING = "holding"
    PULLING = "pulling"
    FROZEN = "frozen"
    STOPPED = "stopped"
    DONE = "done"


_AWAY = (State.STARTING, State.OUT, State.STOPPED)
# A time without a stable round is one of standing still from so many ordinary rounds on.
_TIMES_ORDINARY = 5.0
_LEAST_STILL_S = 0.25
# A uid is a node's name and which of its incarnations: the latter tells people nothing.
_INCARNATION = re.compile(r"/[0-9a-f]{16}\b")
_RANK = {state: rank for rank, state in enumerate(State)}


@dataclass(frozen=True, slots=True)
class Span:
    """A state from one moment to another, in seconds."""

    state: State
    a: float
    b: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """One node's life: spans that do not overlap, in order of time."""

    node: str
    spans: tuple[Span, ...]
    still: tuple[tuple[float, float], ...] = ()
    """From when to when it had no stable round although it was there, whatever it was doing."""

    def seconds(self, *states: State) -> float:
        """Spent in these states."""
        return sum(span.b - span.a for span in self.spans if span.state in states)


def lanes(
    events: Sequence[LogEvent],
    truth: Sequence[LogEvent],
    faults: Sequence[Done],
    exits: Mapping[str, float],
    begin: float,
    end: float,
) -> list[Lane]:
    """One lane per node that was started, in that order.

    Args:
        events: of all nodes, in order of time.
        truth: the director's log.
        faults: what was done.
        exits: when workers ended.
        begin: nothing is told before it.
        end: nor after it.
    """
    started = {str(e["name"]): e.t for e in truth if e.event == "node"}
    last = {node: min(end, exits.get(node, end)) for node in started}
    spans = _seats(events, started, last)
    for node, found in _passing(events, faults, last).items():
        if node in spans:
            spans[node] += found
    least = max(_LEAST_STILL_S, _TIMES_ORDINARY * ordinary_round_s(events, end))
    told = _told(events, begin)
    painted = []
    for node in started:
        lane = Lane(node, _painted(spans[node], begin, last[node]))
        still = _still(lane, told.get(node, []), least)
        over = [Span(State.STANDING, a, b, "no stable round") for a, b in still]
        spans_of = _painted([*spans[node], *over], begin, last[node])
        painted.append(Lane(node, spans_of, tuple(still)))
    return painted


def _told(events: Sequence[LogEvent], begin: float) -> dict[str, list[float]]:
    """When each node told a stable round."""
    told: dict[str, list[float]] = {}
    for e in events:
        if e.event == "round" and e.t >= begin:
            told.setdefault(e.node, []).append(e.t)
    return told


def _still(lane: Lane, told: Sequence[float], least: float) -> list[tuple[float, float]]:
    """Long times between two stable rounds, and after the last, in which it was there."""
    until = next((s.a for s in lane.spans if s.state is State.DONE), None)
    if until is None:
        until = lane.spans[-1].b if lane.spans else 0.0
    away = [s for s in lane.spans if s.state in _AWAY]
    gaps = pairwise([*told, max([until, *told[-1:]])])
    pieces = [piece for a, b in gaps if b - a > least for piece in _without(a, b, away)]
    return [(a, b) for a, b in pieces if b - a > least]


def _without(a: float, b: float, away: Sequence[Span]) -> Iterator[tuple[float, float]]:
    """What is left of a time without those spans, which are in order."""
    for span in away:
        if a < span.b and span.a < b:
            yield a, max(a, span.a)
            a = span.b
    yield a, b


def _seats(
    events: Sequence[LogEvent], started: Mapping[str, float], last: Mapping[str, float]
) -> dict[str, list[Span]]:
    """Whether it is a member."""
    now = {node: Span(State.STARTING, t, last[node]) for node, t in started.items()}
    found: dict[str, list[Span]] = {node: [] for node in started}
    uids: dict[str, str] = {}
    newest = -1

    def turn(node: str, state: State, t: float, why: str) -> None:
        before = now[node]
        if before.state is not state:
            found[node].append(Span(before.state, before.a, t, before.why))
            now[node] = Span(state, t, last[node], why)

    for e in events:
        if e.node not in now:
            continue
        if e.event == "start":
            if e.node in uids:
                turn(e.node, State.OUT, e.t, "a new incarnation")
            uids[e.node] = str(e["uid"])
        elif e.event in ("leave", "final", "end"):
            turn(e.node, State.DONE, e.t, str(e.get("reason", e.event)))
        elif e.event == "view":
            if e.node in e["members"]:
                turn(e.node, State.MEMBER, e.t, "")
            if e["epoch"] > newest:
                newest = int(e["epoch"])
                for node in started:
                    known = uids.get(node)
                    if now[node].state is State.MEMBER and known and known not in e["uids"]:
                        turn(node, State.OUT, e.t, _plain(e["reason"]))
    for node, span in now.items():
        found[node].append(span)
    return found


def _passing(
    events: Sequence[LogEvent], faults: Sequence[Done], last: Mapping[str, float]
) -> dict[str, list[Span]]:
    """What comes over it for a while."""
    found: dict[str, list[Span]] = {}
    for e in events:
        match e.event:
            case "freeze":
                span = Span(State.FROZEN, e.t - float(e["seconds"]), e.t, _plain(e["reason"]))
            case "hold":
                served = ", ".join(e["serving"])
                span = Span(State.HOLDING, e.t - float(e["seconds"]), e.t, f"serves {served}")
            case "pull":
                size = f"{float(e['bytes']) / 1e6:.1f} MB"
                span = Span(State.PULLING, e.t - float(e["seconds"]), e.t, size)
            case _:
                continue
        found.setdefault(e.node, []).append(span)
    for fault in faults:
        match fault.deed:
            case Stop(node, part) if part is not Part.PEER:
                until = fault.cure.t if fault.cure else last.get(node, fault.t)
                found.setdefault(node, []).append(Span(State.STOPPED, fault.t, until, "SIGSTOP"))
            case _:
                pass
    return found


def _painted(spans: Sequence[Span], begin: float, end: float) -> tuple[Span, ...]:
    """One state at every moment, the one of highest rank; neighbours alike are one."""
    edges = sorted({begin, end, *(x for s in spans for x in (s.a, s.b) if begin < x < end)})
    painted: list[Span] = []
    for a, b in pairwise(edges):
        over = [s for s in spans if s.a <= a and s.b >= b]
        if not over or b <= begin:
            continue
        top = max(over, key=lambda s: (_RANK[s.state], s.a))
        if painted and painted[-1].b == a and _alike(painted[-1], top):
            painted[-1] = Span(top.state, painted[-1].a, b, top.why)
        else:
            painted.append(Span(top.state, a, b, top.why))
    return tuple(painted)


def _alike(one: Span, other: Span) -> bool:
    return one.state is other.state and one.why == other.why


def _plain(reason: object) -> str:
    return _INCARNATION.sub("", str(reason))
