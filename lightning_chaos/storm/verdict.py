"""Whether the run lived through the storm, and if not, what shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning_chaos.demo.checks import (
    EpochFacts,
    check_digests,
    check_once,
    digests,
    stable_rounds,
)
from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.storm.deeds import Done
from lightning_chaos.storm.facts import Facts
from lightning_chaos.testing.lab.faults import Kill, Leave, Part

_SHOWN_EVENTS = 8
_SHOWN_LINES = 12
_LONGEST_LINE = 300
# Files on somebody's machine are known by the last parts of their paths.
_PATH = re.compile(r"(?:/[\w.+@-]+)+(/[\w.+@-]+/[\w.+@-]+)")


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that did not survive, or a promise that was not kept."""

    what: str
    t: float | None
    """When it showed, seconds; None: at the end."""
    fault: int | None
    """Number of the fault that it is put down to, None: the whole run's."""
    lines: tuple[str, ...] = ()
    """Of the logs, that show it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement."""

    passed: bool
    failures: tuple[Failure, ...]
    carried_out: int
    """Faults that were done."""
    survived: int
    """Of these, those that no failure is put down to."""
    finishing: tuple[str, ...]
    """Nodes that trained to the end."""
    digest: str
    """Of their state; '' if they differ or have none."""
    epochs: tuple[EpochFacts, ...] = field(default=())
    rounds: int = 0
    """Stable ones."""


def judge(events: Sequence[LogEvent], faults: Sequence[Done], facts: Facts) -> Verdict:
    """Judge a storm.

    Args:
        events: of all nodes, in order of time, in seconds of the storm.
        faults: what was done.
        facts: what the driver knows, its times in seconds of the storm.
    """
    finishing = _finishing(events, faults, facts)
    rounds, told_differently = stable_rounds(events)
    epochs, miscounted = check_once(rounds)
    found = {n: d for n, d in digests(events).items() if n in finishing}
    broken = [*told_differently, *miscounted, *check_digests(found, finishing)]
    broken += _split_views(events)
    promises = [Failure(text, None, None) for text in broken]
    lost = [
        *_unasked_exits(events, faults, facts),
        *_missing(events, faults, facts),
        *_overstayed(events, faults, facts),
        *(Failure(problem, None, None) for problem in facts.problems),
    ]
    blamed = {failure.fault for failure in lost if failure.fault is not None}
    return Verdict(
        passed=not promises and (not lost or bool(facts.not_survivable)),
        failures=(*promises, *lost),
        carried_out=len(faults),
        survived=len(faults) - len(blamed),
        finishing=tuple(finishing),
        digest=next(iter(found.values())) if len(set(found.values())) == 1 else "",
        epochs=tuple(epochs),
        rounds=len(rounds),
    )


def _sent_away(faults: Sequence[Done]) -> dict[str, Done]:
    """Nodes that were killed or asked to leave, for good, and by what."""
    return {
        fault.nodes[0]: fault
        for fault in faults
        if isinstance(fault.deed, Leave)
        or (isinstance(fault.deed, Kill) and fault.deed.part is not Part.PEER)
    }


def _finishing(events: Sequence[LogEvent], faults: Sequence[Done], facts: Facts) -> list[str]:
    """Nodes that had to train to the end; a latecomer to a finished run has nothing to train."""
    away = _sent_away(faults)
    told = {e.node for e in events if e.event == "final"}
    ended = {n for n, e in facts.exits.items() if e.code == 0 and n not in away}
    return sorted(n for n in ended | told if n in told or not facts.finished_itself)


def _unasked_exits(
    events: Sequence[LogEvent], faults: Sequence[Done], facts: Facts
) -> list[Failure]:
    away = _sent_away(faults)
    finals = {e.node for e in events if e.event == "final"}
    found = []
    for node, end in facts.exits.items():
        early = end.t < facts.over and not facts.finished_itself
        if node in away or (end.code == 0 and (node in finals or not early)):
            continue
        # Its log knows it sooner than the process is gone.
        said = [e.t for e in events if e.node == node and e.event == "end" and e.t <= end.t]
        t = said[-1] if said else end.t
        fault = _blamed(node, t, faults)
        after = "" if fault is None else f", {t - fault.t:.1f} s after: {fault.text}"
        found.append(
            Failure(
                f"{node} ended with exit code {end.code} at {t:.1f} s{after}",
                t,
                fault.number if fault else None,
                (*_story(node, events, end.t), *_words(end.words)),
            )
        )
    return found


def _missing(events: Sequence[LogEvent], faults: Sequence[Done], facts: Facts) -> list[Failure]:
    found = []
    for node in facts.missing:
        seen = max((e.t for e in events if e.node == node and e.event == "round"), default=0.0)
        hit = [fault for fault in faults if node in fault.nodes]
        fault = next((f for f in hit if f.t > seen - 1.0), hit[-1] if hit else None)
        words = facts.running.get(node) or (facts.exits[node].words if node in facts.exits else "")
        found.append(
            Failure(
                f"{node} was not in {facts.patience_s:g} s after everything was healed; its last "
                f"stable round was at {seen:.1f} s",
                seen,
                fault.number if fault else None,
                (*_story(node, events, facts.over + facts.patience_s), *_words(words)),
            )
        )
    return found


def _overstayed(events: Sequence[LogEvent], faults: Sequence[Done], facts: Facts) -> list[Failure]:
    """Nodes that were asked to leave and stayed, or did not leave well."""
    found = []
    for node, fault in _sent_away(faults).items():
        if not isinstance(fault.deed, Leave):
            continue
        end = facts.exits.get(node)
        if end is not None and end.code == 0:
            continue
        how = "still ran at the end" if end is None else f"ended with exit code {end.code}"
        words = facts.running.get(node, "") if end is None else end.words
        until = facts.over if end is None else end.t
        lines = (*_story(node, events, until), *_words(words))
        what = f"{node} was asked to leave at {fault.t:.1f} s and {how}"
        found.append(Failure(what, fault.t, fault.number, lines))
    return found


def _split_views(events: Sequence[LogEvent]) -> list[str]:
    """There is one view per epoch, whoever uses it."""
    known: dict[int, LogEvent] = {}
    found: dict[int, str] = {}
    for e in events:
        if e.event != "view":
            continue
        first = known.setdefault(int(e["epoch"]), e)
        if first["uids"] != e["uids"]:
            found.setdefault(
                int(e["epoch"]),
                f"epoch {e['epoch']} has the members {', '.join(e['members'])} at {e.node} "
                f"and {', '.join(first['members'])} at {first.node}",
            )
    return list(found.values())


def _blamed(node: str, t: float, faults: Sequence[Done]) -> Done | None:
    """The last fault before that met the node, or else the last one at all."""
    before = [fault for fault in faults if fault.t <= t]
    return next(
        (fault for fault in reversed(before) if node in fault.nodes),
        before[-1] if before else None,
    )


def _story(node: str, events: Sequence[LogEvent], until: float) -> list[str]:
    """The node's last events but rounds, as lines."""
    told = [
        e
        for e in events
        if e.node == node and e.t <= until and e.event not in ("round", "pulling", "settings")
    ]
    lines = []
    for e in told[-_SHOWN_EVENTS:]:
        fields = " ".join(f"{k}={v}" for k, v in e.fields.items() if k not in ("uids", "per_donor"))
        lines.append(_short(f"{e.t:8.2f} s  {e.event} {fields}"))
    return lines


def _words(printed: str) -> list[str]:
    return [_short(line) for line in printed.splitlines()[-_SHOWN_LINES:]]


def _short(line: str) -> str:
    line = _PATH.sub(r"…\1", line)
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"
