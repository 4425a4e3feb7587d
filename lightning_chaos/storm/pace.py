"""How fast the run went at every moment, and with how many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.storm.lanes import Lane

_MOST_BINS = 600


@dataclass(frozen=True, slots=True)
class Pace:
    """Equal bins of time, and steps of it."""

    bin_s: float
    rounds_per_s: tuple[float, ...]
    """From second 0 on, one per bin."""
    samples_per_s: tuple[float, ...]
    members: tuple[tuple[float, int], ...]
    """(since when, how many) of the newest view anybody used."""
    running: tuple[tuple[float, int], ...]
    """(since when, how many) workers that run."""


def pace(events: Sequence[LogEvent], lanes: Sequence[Lane], end: float) -> Pace:
    """Throughput in bins of a second or more, members and workers as steps.

    A round counts when the first node tells that it is stable; its samples are the weights of
    its members.

    Args:
        events: of all nodes, in order of time.
        lanes: of all nodes.
        end: seconds.
    """
    bin_s = float(max(1, math.ceil(end / _MOST_BINS)))
    count = max(1, math.ceil(end / bin_s))
    rounds, samples = [0.0] * count, [0.0] * count
    seen: set[int] = set()
    members: list[tuple[float, int]] = []
    newest = -1
    for e in events:
        if e.event == "round" and e["round"] not in seen:
            seen.add(e["round"])
            if 0 <= e.t < end:
                place = min(count - 1, int(e.t / bin_s))
                # The last bin may be shorter than the others.
                width = min(bin_s, end - place * bin_s)
                rounds[place] += 1 / width
                samples[place] += sum(e["weights"]) / width
        elif e.event == "view" and e["epoch"] > newest:
            newest = e["epoch"]
            if not members or members[-1][1] != len(e["members"]):
                members.append((e.t, len(e["members"])))
    return Pace(bin_s, tuple(rounds), tuple(samples), tuple(members), _running(lanes))


def _running(lanes: Sequence[Lane]) -> tuple[tuple[float, int], ...]:
    edges = sorted(
        [(lane.spans[0].a, 1) for lane in lanes if lane.spans]
        + [(lane.spans[-1].b, -1) for lane in lanes if lane.spans]
    )
    steps: list[tuple[float, int]] = []
    now = 0
    for t, change in edges:
        now += change
        steps.append((t, now))
    return tuple(steps)
