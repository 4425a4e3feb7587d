"""A schedule and the policies side by side, as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from lightning_chaos.plan.at_once import Pull
from lightning_chaos.planning.completion import fluid
from lightning_chaos.planning.policies import Outcome, Scene
from lightning_chaos.planning.several import SeveralPlan


def bound_s(scene: Scene) -> float:
    """Before that no policy brings one newcomer its state: no time is lost between shards."""
    return fluid(
        scene.total_bytes,
        [donor.rate_bytes_per_s for donor in scene.donors],
        [donor.release_s for donor in scene.donors],
        scene.ingress_bytes_per_s,
    )


def schedule(pull: Pull) -> Table:
    """What each donor sends to one newcomer under a policy."""
    scene, outcome = pull.scene, pull.outcome
    title = f"{outcome.policy}: {pull.newcomer} pulls {scene.total_bytes / 1e6:.1f} MB"
    title += f", {outcome.source}"
    if math.isfinite(scene.ingress_bytes_per_s):
        title += f", and takes in {scene.ingress_bytes_per_s * 8e-6:g} Mbit/s at most"
    table = _table(
        title,
        ("donor",),
        ("Mbit/s", "begins", "shards", "MB", "share", "done"),
    )
    sent = sum(outcome.bytes_from.values())
    for donor in scene.donors:
        part = outcome.bytes_from.get(donor.name, 0)
        table.add_row(
            donor.name,
            f"{donor.rate_bytes_per_s * 8e-6:.0f}",
            _seconds(donor.release_s),
            str(outcome.plan.counts[donor.name]) if outcome.plan else "",
            f"{part / 1e6:.1f}" if sent else "",
            f"{part / sent:.1%}" if sent else "",
            _seconds(outcome.ends_s[donor.name]) if part else "",
        )
    return table


def comparison(best_s: float, outcomes: Mapping[str, Outcome | str]) -> Table:
    """All policies; for one that cannot be predicted, why."""
    table = _table("all policies", ("policy", "state from"), ("transfer", "× bound", "others wait"))
    for name, outcome in outcomes.items():
        if isinstance(outcome, str):
            table.add_row(name, outcome)
            continue
        table.add_row(
            name,
            outcome.source,
            _seconds(outcome.transfer_s),
            f"{outcome.transfer_s / best_s:.3f}",
            _seconds(outcome.stall_s),
        )
    return table


def several(plan: SeveralPlan) -> Table:
    """Who sends what to each of several newcomers."""
    table = _table(
        f"{len(plan.ranges)} newcomers pull {plan.shards} shards of {plan.shard_bytes / 1024:g} "
        "KiB, and pass them on",
        ("newcomer", "source", "ranges of shards"),
        ("share", "begins", "done"),
    )
    for newcomer, sources in plan.ranges.items():
        for n, (source, ranges) in enumerate(sources.items()):
            count = sum(end - first for first, end in ranges)
            table.add_row(
                "" if n else newcomer,
                source,
                ", ".join(f"{first}–{end - 1}" for first, end in ranges),
                f"{count / plan.shards:.1%}",
                *map(_seconds, plan.spans_s[newcomer][source]),
            )
    return table


def prediction(makespan_s: float, bound_s: float) -> str:
    """The line under a schedule."""
    return (
        f"predicted {_seconds(makespan_s)}; bound {_seconds(bound_s)} "
        f"({makespan_s / bound_s:.3f} × of it)"
    )


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in words:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 10 else f"{seconds:.1f} s"
