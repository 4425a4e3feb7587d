"""The storm as a picture: throughput, members, nodes and links over one axis of time.

Only geometry: what is drawn is a list of SVG elements with classes; colours are the style sheet's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lightning_chaos.storm.costs import Priced
from lightning_chaos.storm.figures import Figures
from lightning_chaos.storm.lanes import Lane
from lightning_chaos.testing.lab.faults import (
    CutLink,
    CutOneWay,
    Deed,
    Join,
    Stop,
    Throttle,
)

WIDTH = 1080
_LEFT, _RIGHT = 112, 14
_HEAD, _PACE, _MEMBERS, _LANE, _TROUBLE, _FOOT, _GAP = 46, 130, 64, 22, 17, 26, 30
_LEAST_PX = 1.6
_NAME_LETTERS = 14
_TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
_MOST_TICKS = 12


@dataclass(frozen=True, slots=True)
class Element:
    """One SVG element."""

    tag: str
    attributes: dict[str, str | float]
    title: str = ""
    """Shown when the pointer rests on it."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing of a size, in units of the view box."""

    height: float
    elements: tuple[Element, ...]
    width: float = WIDTH


@dataclass(slots=True)
class _Canvas:
    figures: Figures
    y: float = _HEAD
    elements: list[Element] = field(default_factory=list)

    def x(self, t: float) -> float:
        span = max(self.figures.end, 1e-9)
        share = min(1.0, max(0.0, t / span))
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 2)

    def add(self, tag: str, title: str = "", text: str = "", **attributes: str | float) -> None:
        # "class" is a word of Python's, and "text-anchor" no name.
        named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        self.elements.append(Element(tag, named, title, text))

    def label(self, text: str, y: float, class_: str = "label") -> None:
        title = text if len(text) > _NAME_LETTERS else ""
        self.add(
            "text", title, short(text), x=_LEFT - 8, y=round(y, 2), text_anchor="end", class_=class_
        )

    def bar(self, a: float, b: float, y: float, height: float, class_: str, title: str) -> None:
        x = self.x(a)
        width = max(_LEAST_PX, round(self.x(b) - x, 2))
        self.add("rect", title, x=x, y=y, width=width, height=height, class_=class_)


def picture(figures: Figures) -> Picture:
    """Draw a storm."""
    canvas = _Canvas(figures)
    _pace(canvas)
    _members(canvas)
    _lanes(canvas)
    _troubles(canvas)
    bottom = canvas.y
    _axis(canvas, bottom)
    _faults(canvas, bottom)
    return Picture(bottom + _FOOT, tuple(canvas.elements))


def short(name: str) -> str:
    """A name that fits beside the picture."""
    return name if len(name) <= _NAME_LETTERS else f"{name[: _NAME_LETTERS - 1]}…"


def clock(t: float) -> str:
    """A moment of the storm, as minutes and seconds."""
    return f"{int(t) // 60}:{int(t) % 60:02}"


def tone(deed: Deed) -> str:
    """Which colour a fault has."""
    match deed:
        case CutLink() | CutOneWay():
            return "cut"
        case Throttle():
            return "throttle"
        case Stop():
            return "stop"
        case Join():
            return "join"
        case _:
            return "end"


# ---- the panels, from above ------------------------------------------------------------------


def _pace(canvas: _Canvas) -> None:
    pace = canvas.figures.pace
    top, most = _nice(max(pace.samples_per_s, default=0.0))
    base = canvas.y + _PACE
    _scale(canvas, base, _PACE, top, most, "samples/s")
    points = [f"M{canvas.x(0)},{base}"]
    for place, value in enumerate(pace.samples_per_s):
        y = round(base - value / top * _PACE, 2)
        points.append(f"L{canvas.x(place * pace.bin_s)},{y}")
        points.append(f"L{canvas.x((place + 1) * pace.bin_s)},{y}")
    points.append(f"L{canvas.x(canvas.figures.end)},{base}Z")
    canvas.add("path", d="".join(points), class_="pace")
    canvas.y = base + _GAP


def _members(canvas: _Canvas) -> None:
    pace = canvas.figures.pace
    top = max([1, *(n for _, n in pace.members), *(n for _, n in pace.running)])
    base = canvas.y + _MEMBERS
    _scale(canvas, base, _MEMBERS, top, top, "members")
    canvas.add("path", d=_steps(canvas, pace.running, base, top), class_="running")
    canvas.add("path", d=_steps(canvas, pace.members, base, top), class_="members")
    canvas.y = base + _GAP


def _steps(canvas: _Canvas, steps: Sequence[tuple[float, int]], base: float, top: int) -> str:
    path = ""
    for place, (t, n) in enumerate(steps):
        if place + 1 < len(steps) and steps[place + 1][0] <= 0:
            continue  # before the storm
        y = round(base - n / top * _MEMBERS, 2)
        until = steps[place + 1][0] if place + 1 < len(steps) else canvas.figures.end
        path += f"{'L' if path else 'M'}{canvas.x(t)},{y}L{canvas.x(until)},{y}"
    return path or f"M{canvas.x(0)},{base}"


def _lanes(canvas: _Canvas) -> None:
    canvas.label("nodes", canvas.y - 8, "panel")
    for lane in canvas.figures.lanes:
        _lane(canvas, lane)
    canvas.y += _GAP - 8


def _lane(canvas: _Canvas, lane: Lane) -> None:
    canvas.label(lane.node, canvas.y + 13)
    for span in lane.spans:
        title = f"{lane.node} {span.state} {clock(span.a)}, {span.b - span.a:.2f} s"
        title += f": {span.why}" if span.why else ""
        canvas.bar(span.a, span.b, canvas.y + 2, _LANE - 6, f"state {span.state}", title)
    canvas.y += _LANE


def _troubles(canvas: _Canvas) -> None:
    rows: dict[str, list[tuple[float, float, str, str]]] = {}
    for trouble in canvas.figures.links.troubles:
        row = rows.setdefault(trouble.link, [])
        row.append((trouble.a, trouble.b, trouble.kind, trouble.text))
    if not rows:
        return
    canvas.y += 10
    canvas.label("links", canvas.y - 6, "panel")
    for link, row in rows.items():
        canvas.label(link, canvas.y + 10)
        line = canvas.y + _TROUBLE / 2 - 1
        canvas.add("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=line, y2=line, class_="grid")
        for a, b, kind, text in row:
            canvas.bar(a, b, canvas.y + 2, _TROUBLE - 6, f"link {kind}", f"{text}, {b - a:.1f} s")
        canvas.y += _TROUBLE
    canvas.y += 6


def _faults(canvas: _Canvas, bottom: float) -> None:
    """A number above, a line through everything, a dot on the lanes of whom it met."""
    rows = {lane.node: place for place, lane in enumerate(canvas.figures.lanes)}
    first = _HEAD + _PACE + _GAP + _MEMBERS + _GAP
    for fault, high in _staggered(canvas):
        x, done = canvas.x(fault.fault.t), fault.fault
        title = f"{done.number}: {done.text} at {clock(done.t)}"
        kind = tone(done.deed)
        y = 12 if high else 28
        canvas.add("line", title, x1=x, x2=x, y1=y + 4, y2=bottom, class_=f"fault {kind}")
        canvas.add(
            "text", title, str(done.number), x=x, y=y, text_anchor="middle", class_=f"number {kind}"
        )
        for node in done.nodes:
            if node in rows:
                middle = first + rows[node] * _LANE + _LANE / 2 - 1
                canvas.add("circle", title, cx=x, cy=middle, r=3.6, class_=f"dot {kind}")


def _staggered(canvas: _Canvas) -> Iterator[tuple[Priced, bool]]:
    """Faults, and whether the number stands higher, since its neighbour is too near."""
    last, high = -math.inf, False
    for fault in canvas.figures.faults:
        x = canvas.x(fault.fault.t)
        high = not high if x - last < 18 else False
        last = x
        yield fault, high


def _axis(canvas: _Canvas, bottom: float) -> None:
    end, over = canvas.figures.end, canvas.figures.facts.over
    step = next((s for s in _TICKS_S if end / s <= _MOST_TICKS), _TICKS_S[-1])
    for tick in range(0, int(end) + 1, step):
        x = canvas.x(tick)
        canvas.add("line", x1=x, x2=x, y1=bottom, y2=bottom + 5, class_="axis")
        canvas.add(
            "text", x=x, y=bottom + 19, text=clock(tick), text_anchor="middle", class_="tick"
        )
    canvas.add("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=bottom, y2=bottom, class_="axis")
    title = "everything is healed; all come in, and the run is asked to end"
    width = round(max(0.0, WIDTH - _RIGHT - canvas.x(over)), 2)
    canvas.add(
        "rect", title, x=canvas.x(over), y=_HEAD, width=width, height=bottom - _HEAD, class_="over"
    )


def _scale(canvas: _Canvas, base: float, height: float, top: float, most: float, name: str) -> None:
    """Lines and numbers of a panel's own axis."""
    canvas.label(name, base - height - 11, "panel")
    halves = most > 1 and most % 2 == 0
    values = (0.0, most / 2, most) if halves else (0.0, most)
    for value in values:
        y = round(base - value / top * height, 2)
        canvas.add("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid")
        canvas.label(f"{value:g}", y + 4, "tick")


def _nice(most: float) -> tuple[float, float]:
    """The end of an axis that holds the most, and its highest number: 1, 2 or 5 times a power."""
    if most <= 0:
        return 1.0, 1.0
    power = 10.0 ** math.floor(math.log10(most))
    top = next(factor * power for factor in (1, 2, 4, 6, 8, 10) if factor * power >= most)
    return top, top
