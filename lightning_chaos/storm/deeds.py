"""The faults of a storm as its ground truth tells them: who was hit, when it was undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.storm.facts import is_cure
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.faults import (
    Cont,
    CutLink,
    CutOneWay,
    Deed,
    Heal,
    Join,
    Kill,
    Leave,
    Part,
    Stop,
    Throttle,
)


@dataclass(frozen=True, slots=True)
class Done:
    """A fault that was carried out."""

    number: int
    """From 1, in order of time; cures are not counted."""
    event: LogEvent
    deed: Deed
    cure: LogEvent | None
    """What undid it, if anything did."""

    @property
    def t(self) -> float:
        """When it was done."""
        return self.event.t

    @property
    def kind(self) -> str:
        """For the summary: a kill of a peer alone is another thing than that of a node."""
        name = str(self.event["do"]).replace("_", " ")
        match self.deed:
            case Kill(part=part) | Stop(part=part) if part is not Part.BOTH:
                return f"{name} {part}"
            case _:
                return name

    @property
    def text(self) -> str:
        """In a few words, for people."""
        match self.deed:
            case Kill(node) | Stop(node) | Leave(node) | Join(node):
                return f"{self.kind} {node}"
            case CutLink(a, b, how):
                return f"cut {a} – {b} ({how})"
            case CutOneWay(a, b, how):
                return f"cut {a} → {b} ({how})"
            case Throttle(a, b, shape):
                rate = "no limit" if shape.rate_mbit is None else f"{shape.rate_mbit:g} Mbit/s"
                return f"throttle {a} – {b} ({rate}, {shape.delay_ms:g} ms)"
            case _:
                return self.kind

    @property
    def nodes(self) -> tuple[str, ...]:
        """The node it met, or the link's two ends."""
        match self.deed:
            case Kill(node) | Stop(node) | Leave(node) | Join(node):
                return (node,)
            case CutLink(a, b) | CutOneWay(a, b) | Throttle(a, b):
                return (a, b)
            case _:
                return ()


def deeds_done(truth: Sequence[LogEvent], shape: Shape) -> list[Done]:
    """Every fault of the ground truth, in order of time, each with its cure.

    Args:
        truth: the director's log.
        shape: of links that are not throttled.
    """
    told = [(event, _deed(event)) for event in truth if event.event == "fault"]
    faults = [(place, e, d) for place, (e, d) in enumerate(told) if not is_cure(d, shape)]
    return [
        Done(
            number,
            event,
            deed,
            next((e for e, later in told[place + 1 :] if _cures(later, deed, shape)), None),
        )
        for number, (place, event, deed) in enumerate(faults, 1)
    ]


def _deed(event: LogEvent) -> Deed:
    fields = dict(event.fields)
    fields.pop("at", None)
    if "hit" in fields:
        fields["node"] = fields.pop("hit")
    deed: Deed = msgspec.convert(fields, Deed)
    return deed


def _cures(later: Deed, deed: Deed, shape: Shape) -> bool:
    match deed, later:
        case Stop(node), Cont(other):
            return node == other
        case ((CutLink(a, b) | CutOneWay(a, b)), Heal(c, d)):
            return _within({a, b}, c, d)
        case Throttle(a, b), Throttle(c, d, given):
            return {a, b} == {c, d} and given == shape
        case _:
            return False


def _within(ends: set[str], a: str, b: str) -> bool:
    named = {a, b} - {"*"}
    return named <= ends and (len(named) < 2 or named == ends)
