"""What the benchmarks share: the frame of their tables."""

from __future__ import annotations

import argparse
import math
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil


def parser(description: str) -> argparse.ArgumentParser:
    """Options of every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--smoke", action="store_true", help="only see that it runs, in seconds")
    parser.add_argument("--write", type=Path, help="also write the table to this file")
    return parser


class Figures:
    """Samples in seconds by what they are of, in the order in which that first came up."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}

    def add(self, name: str, seconds: float) -> None:
        self.samples.setdefault(name, []).append(seconds)

    def rows(self) -> list[str]:
        """Markdown."""
        lines = ["| what | n | median | p95 | min | max |", "|---|---|---|---|---|---|"]
        for name, samples in self.samples.items():
            ordered = sorted(samples)
            p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
            four = (statistics.median(ordered), p95, ordered[0], ordered[-1])
            figures = " | ".join(f"{f * 1e3:.1f} ms" for f in four)
            lines.append(f"| {name} | {len(ordered)} | {figures} |")
        return lines


def machine() -> str:
    """One line: the machine, and the versions that matter."""
    names = ("lightning-chaos", "torch", "lightning", "numpy")
    versions = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in names)
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    return (
        f"{cores} cores ({platform.machine()}), {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, {versions}."
    )


def milliseconds(samples: Sequence[float], digits: int = 1) -> str:
    """Median and the range of the middle eight tenths, from seconds."""
    ordered = sorted(samples)
    at = len(ordered) - 1
    figures = statistics.median(ordered), ordered[round(0.1 * at)], ordered[round(0.9 * at)]
    middle, low, high = (f"{seconds * 1e3:.{digits}f}" for seconds in figures)
    return f"{middle} ({low} to {high})"


def publish(text: str, to: Path | None) -> None:
    """Print a table and write it where the user wants it."""
    print(text)
    if to:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text)
