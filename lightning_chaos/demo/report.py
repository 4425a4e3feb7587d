"""The demo's report: what happened, what was checked, and every promise that was not kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_chaos.demo.checks import (
    EpochFacts,
    PullFacts,
    accuracies,
    check_accuracy,
    check_digests,
    check_donors,
    check_left,
    check_once,
    check_plan,
    digests,
    pulls,
    stable_rounds,
    too_few_shards,
)
from lightning_chaos.demo.timings import Deed, Timing, median_round_s, timings
from lightning_chaos.monitor.runlog import LogEvent

NOT_SHARED = "the donors' shares are not checked: the state is too small to share it out"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What ``lightning-chaos replay`` made of the demo's logs."""

    equal: bool
    said: str
    """Its last line."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What the driver knows and the logs do not."""

    nodes: Sequence[str]
    """Every node that was started."""
    newcomer: str
    deeds: Sequence[Deed]
    exits: Mapping[str, int]
    """Exit codes of the processes that ended by themselves or by a signal."""
    problem: str
    """Why the demo ended early, '' if it did not."""
    seconds: float
    accuracy_required: bool
    """A finishing node without a test accuracy is a failure (our own script has one)."""
    plan_required: bool = False
    """The newcomer's donors must give what was planned for them."""
    replayed: Replayed | None = None
    """None if it was not asked for."""

    @property
    def finishing(self) -> list[str]:
        """Nodes that nobody killed or sent away."""
        hit = {d.node for d in self.deeds}
        return [n for n in self.nodes if n not in hit]


@dataclass(frozen=True, slots=True)
class Report:
    """The whole outcome; its JSON is what ``--json`` writes."""

    passed: bool
    failures: list[str]
    seconds: float
    rounds: int
    """Stable rounds."""
    round_s: float
    """Median seconds of a round."""
    members: list[str]
    """Nodes that finished."""
    timings: list[Timing]
    pulls: list[PullFacts]
    digests: dict[str, str]
    epochs: list[EpochFacts]
    accuracy: dict[str, tuple[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What was not checked, and why."""
    replayed: Replayed | None = None


def make_report(events: Sequence[LogEvent], facts: Facts) -> Report:
    """Judge a run by its logs.

    Args:
        events: all logs, in order of time.
        facts: what else is known.
    """
    finishing = facts.finishing
    failures = [facts.problem] if facts.problem else []
    found_digests = {n: d for n, d in digests(events).items() if n in finishing}
    rounds, told_differently = stable_rounds(events)
    epochs, miscounted = check_once(rounds)
    found_pulls = pulls(events)
    found_accuracies = {n: a for n, a in accuracies(events).items() if n in finishing}
    failures += told_differently
    # A run that was cut short is judged by the rounds it had; the rest never came.
    if rounds or not facts.problem:
        failures += miscounted
    if not facts.problem:
        failures += [
            f"{n} ended with exit code {facts.exits[n]}" for n in finishing if facts.exits.get(n)
        ]
        failures += check_donors(found_pulls, facts.newcomer)
        if facts.plan_required:
            failures += check_plan(found_pulls, facts.newcomer)
        failures += check_digests(found_digests, finishing)
        failures += check_accuracy(found_accuracies, finishing, required=facts.accuracy_required)
        for deed in facts.deeds:
            if deed.kind == "leave":
                failures += check_left(events, deed.node)
        if facts.replayed is not None and not facts.replayed.equal:
            failures.append(f"replay: {facts.replayed.said}")
    return Report(
        passed=not failures,
        failures=failures,
        seconds=facts.seconds,
        rounds=len(rounds),
        round_s=median_round_s(events),
        members=finishing,
        timings=timings(events, facts.deeds, facts.newcomer),
        pulls=found_pulls,
        digests=found_digests,
        epochs=epochs,
        accuracy=found_accuracies,
        notes=[] if facts.problem else _notes(found_accuracies, found_pulls, facts),
        replayed=facts.replayed,
    )


def _notes(
    found_accuracies: Mapping[str, object], found_pulls: Sequence[PullFacts], facts: Facts
) -> list[str]:
    """What a demo that came to its end has not checked, and why."""
    notes = [] if found_accuracies else ["test accuracy is not checked: no metric named *acc*"]
    if too_few_shards(found_pulls, facts.newcomer):
        notes.append(NOT_SHARED)
    if not any(d.kind == "leave" for d in facts.deeds):
        notes.append("no polite leave was shown: too few members were left")
    return notes


def write_json(report: Report, path: Path) -> None:
    """The report as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def print_report(report: Report, console: Console) -> None:
    """The report as tables, the verdict last."""
    console.print()
    console.print(_timing_table(report))
    for pull in report.pulls:
        console.print(_pull_line(pull), style="italic", highlight=False, soft_wrap=True)
        console.print(_pull_table(pull))
    console.print(_end_table(report))
    complete = [e for e in report.epochs if e.complete]
    for line in (
        f"{len(complete)} complete epochs of the data and {len(report.epochs) - len(complete)} "
        f"begun, {report.rounds} rounds, median {report.round_s * 1e3:.0f} ms",
        *report.notes,
        *_replay_lines(report),
    ):
        console.print(Text(line))
    for failure in report.failures:
        console.print(Text(f"FAILED: {failure}", style="bold red"), soft_wrap=True)
    if report.passed:
        console.print(
            Text(
                f"passed in {report.seconds:.1f} s: digests equal, every sample counted once"
                + ("" if NOT_SHARED in report.notes else ", every donor served"),
                style="bold green",
            )
        )
    else:
        console.print(Text(f"failed after {report.seconds:.1f} s", style="bold red"))


def _replay_lines(report: Report) -> list[str]:
    again = report.replayed
    if again is None:
        return []
    return [f"recomputed by one process in {again.seconds:.1f} s: {again.said}"]


def _timing_table(report: Report) -> Table:
    table = Table(title="What happened", title_justify="left")
    for name in ("event", "node", "measured", "took", "anyone stood still"):
        table.add_column(name)
    for timing in report.timings:
        table.add_row(
            timing.what, timing.node, timing.meaning, _ms(timing.took_s), _ms(timing.still_s)
        )
    return table


def _pull_line(pull: PullFacts) -> str:
    predicted = ""
    if pull.predicted_s is not None:
        predicted = f" ({pull.predicted_s:.2f} s by the plan of {pull.planned_s:.2f} s)"
    return (
        f"{pull.node} pulled {pull.bytes / 1e6:.1f} MB in {pull.shards} shards at round "
        f"{pull.round}: {pull.seconds:.2f} s{predicted}, "
        f"{pull.overlap_s:.2f} s of it from all at once"
    )


def _pull_table(pull: PullFacts) -> Table:
    table = Table()
    for name in ("donor", "planned MB", "MB", "share", "planned Mbit/s", "Mbit/s", "serving (s)"):
        table.add_column(name)
    began = min((d.first_t for d in pull.donors if d.bytes), default=0.0)
    for donor in pull.donors:
        span = f"{donor.first_t - began:.2f} – {donor.last_t - began:.2f}" if donor.bytes else "–"
        table.add_row(
            donor.node,
            _scaled(donor.planned_bytes, 1e-6),
            f"{donor.bytes / 1e6:.1f}",
            f"{donor.share:.0%}",
            _scaled(donor.planned_bytes_per_s, 8e-6),
            _scaled(donor.bytes_per_s, 8e-6),
            span,
        )
    return table


def _end_table(report: Report) -> Table:
    table = Table(title="Who finished", title_justify="left")
    for name in ("node", "digest of the state", "test"):
        table.add_column(name)
    for node in report.members:
        name, value = report.accuracy.get(node, ("", 0.0))
        table.add_row(
            node, report.digests.get(node, "–")[:24], f"{name} {value:.3f}" if name else "–"
        )
    return table


def _scaled(figure: float | None, by: float) -> str:
    return "–" if figure is None else f"{figure * by:.1f}"


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"
