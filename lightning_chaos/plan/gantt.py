"""A schedule as a chart: when each of those who send begins and ends, and the bound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from lightning_chaos.errors import ConfigError


class Bar(msgspec.Struct, frozen=True):
    """What one sends to another."""

    label: str
    span_s: tuple[float, float] | None
    """From when to when, seconds; None for one who sends nothing."""
    bytes: int


def draw(title: str, bars: Sequence[Bar], bound_s: float, to: Path) -> None:
    """Draw a schedule as bars over time.

    Args:
        title: what it is.
        bars: from above down.
        bound_s: before which nothing can end, seconds.
        to: the file; its suffix says the format, PNG if there is none.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("--plot needs matplotlib: pip install 'lightning-chaos[plot]'") from None
    figure = Figure(figsize=(8, 1.4 + 0.35 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    for row, bar in enumerate(bars):
        if bar.span_s is None:
            continue
        begin_s, end_s = bar.span_s
        axes.barh(row, end_s - begin_s, left=begin_s, color="#4c78a8")
        sent = f" {bar.bytes / 1e6:.1f} MB"
        axes.text(begin_s, row, sent, va="center", color="white", clip_on=True)
    axes.axvline(bound_s, color="#d62728", linestyle="--")
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars], parse_math=False)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"seconds; dashed: the bound, {bound_s:.3f}")
    axes.set_title(title, parse_math=False)
    try:
        # With the format given, no suffix is added: the file is the one that was named.
        figure.savefig(to, dpi=120, format=to.suffix[1:] or "png")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the chart cannot be written: {error}") from None
