"""The donors' time as a chart: when each begins and ends, and the bound."""

from __future__ import annotations

from pathlib import Path

from lightning_chaos.errors import ConfigError
from lightning_chaos.plan.tables import bound_s
from lightning_chaos.planning.policies import Outcome, Scene


def draw(scene: Scene, newcomer: str, outcome: Outcome, to: Path) -> None:
    """Draw the donors of a schedule as bars over time.

    Raises:
        ConfigError: matplotlib is not installed, the policy names no donors, or the file cannot
            be written.
    """
    if not outcome.ends_s:
        raise ConfigError(f"{outcome.policy} has no schedule of donors to draw")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("--plot needs matplotlib: pip install 'lightning-chaos[plot]'") from None
    figure = Figure(figsize=(8, 1.4 + 0.35 * len(scene.donors)), layout="constrained")
    axes = figure.add_subplot()
    for row, donor in enumerate(scene.donors):
        end_s = outcome.ends_s.get(donor.name)
        if end_s is None:
            continue
        axes.barh(row, end_s - donor.release_s, left=donor.release_s, color="#4c78a8")
        sent = f" {outcome.bytes_from[donor.name] / 1e6:.1f} MB"
        axes.text(donor.release_s, row, sent, va="center", color="white", clip_on=True)
    best_s = bound_s(scene)
    axes.axvline(best_s, color="#d62728", linestyle="--")
    names = [donor.name for donor in scene.donors]
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(scene.donors) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"seconds; dashed: the bound, {best_s:.3f}")
    title = f"{outcome.policy}: {newcomer} has its state after {outcome.transfer_s:.3f} s"
    axes.set_title(title, parse_math=False)
    try:
        # With the format given, no suffix is added: the file is the one that was named.
        figure.savefig(to, dpi=120, format=to.suffix[1:] or "png")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the chart cannot be written: {error}") from None
