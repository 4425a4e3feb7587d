"""All figures of a storm: from logs and facts to what the report shows.  Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.storm.costs import Priced, Summary, priced, summed_up
from lightning_chaos.storm.deeds import deeds_done
from lightning_chaos.storm.facts import Facts
from lightning_chaos.storm.idle import Idle, idle
from lightning_chaos.storm.lanes import Lane, lanes
from lightning_chaos.storm.links import Links, links
from lightning_chaos.storm.pace import Pace, pace
from lightning_chaos.storm.verdict import Verdict, judge
from lightning_chaos.storm.waits import Wait, waits

WORST = 10


@dataclass(frozen=True, slots=True)
class Figures:
    """What the report shows; all times in seconds since the storm began."""

    facts: Facts
    verdict: Verdict
    end: float
    """When the last worker ended."""
    samples: float
    """Committed between begin and ``over``."""
    rounds_per_s: float
    """Mean over the storm."""
    ordinary_s: float
    """Median duration of a round."""
    still_s: float
    """In which some member waited, the waits of all nodes laid over each other."""
    pace: Pace
    lanes: tuple[Lane, ...]
    faults: tuple[Priced, ...]
    summary: tuple[Summary, ...]
    links: Links
    idle: tuple[Idle, ...]
    waits: tuple[Wait, ...]
    """The worst ten."""


def gather(events: Sequence[LogEvent], truth: Sequence[LogEvent], facts: Facts) -> Figures:
    """Make the figures.

    Args:
        events: run logs of all nodes, in order of time.
        truth: the director's log.
        facts: what the driver knows.
    """
    zero = facts.began
    events, truth = _since(zero, events), _since(zero, truth)
    facts = replace(
        facts,
        began=0.0,
        over=facts.over - zero,
        exits={node: replace(e, t=e.t - zero) for node, e in facts.exits.items()},
    )
    end = _end(events, facts)
    faults = deeds_done(truth, facts.shape)
    exits = {node: e.t for node, e in facts.exits.items()}
    life = lanes(events, truth, faults, exits, 0.0, end)
    speed = pace(events, life, end)
    told = {e["round"]: e for e in reversed(events) if e.event == "round"}
    counted = [e for e in told.values() if 0 <= e.t < facts.over]
    found = priced(events, faults, facts.over)
    stills = waits(life, faults)
    return Figures(
        facts=facts,
        verdict=judge(events, faults, facts),
        end=end,
        samples=sum(sum(e["weights"]) for e in counted),
        rounds_per_s=len(counted) / facts.over if facts.over > 0 else 0.0,
        ordinary_s=statistics.median([float(e["round_s"]) for e in told.values()] or [0.0]),
        still_s=sum(wait.seconds for wait in stills),
        pace=speed,
        lanes=tuple(life),
        faults=tuple(found),
        summary=tuple(summed_up(found)),
        links=links([lane.node for lane in life], facts.carried, faults, facts.over),
        idle=tuple(idle(events, life)),
        waits=tuple(stills[:WORST]),
    )


def as_json(figures: Figures) -> bytes:
    """The figures, as ``--json`` writes them."""
    return msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n"


def _since(zero: float, events: Sequence[LogEvent]) -> list[LogEvent]:
    return [msgspec.structs.replace(e, t=e.t - zero) for e in events]


def _end(events: Sequence[LogEvent], facts: Facts) -> float:
    """The last worker's end, or the last event if some never ended."""
    times = [facts.over, *(e.t for e in facts.exits.values())]
    if facts.running:
        times += [e.t for e in events[-1:]]
    return max(times)
