"""What the user chooses for a storm, checked before anything starts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_chaos.demo.play import our_script
from lightning_chaos.errors import ConfigError
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.faults import Schedule
from lightning_chaos.testing.lab.storm import storm
from lightning_chaos.testing.lab.survival import survivable

# More epochs than any storm lasts; a state of which every member can serve its part.
OUR_ARGS = ("--padding-mb", "8", "--max-epochs", "1000000", "--checkpoint-epochs", "0")


@dataclass(frozen=True, slots=True)
class Settings:
    """One storm; made by :func:`prepare`."""

    script: Path
    script_args: tuple[str, ...]
    cwd: Path | None
    """Working directory of the nodes, None for the storm's own."""
    nodes: tuple[str, ...]
    """At the begin, oldest first."""
    schedule: Schedule
    seed: int | None
    """Of the schedule, None if it came from a file."""
    minutes: float
    shape: Shape
    directory: Path
    """For logs and output."""
    command: str
    """What repeats it."""


def prepare(
    *,
    script: Path | None,
    script_args: Sequence[str],
    nodes: int,
    minutes: float,
    seed: int,
    every_s: float,
    most_ended: int,
    faults: Path | None,
    shape: Shape,
    directory: Path,
) -> Settings:
    """The storm that is asked for.

    Args:
        script: what the nodes train, None for our digits.
        script_args: its command line.
        nodes: how many there are at the begin.
        minutes: how long it lasts.
        seed: of the faults that are drawn.
        every_s: seconds between two of them, on average.
        most_ended: most of them that end a process.
        faults: YAML file with a schedule, instead of a drawn one.
        shape: what links are like.
        directory: for logs and output; must hold none of an older storm.

    Raises:
        ConfigError: any of it cannot work; says what and what to do.
    """
    names = tuple(f"n{place}" for place in range(1, nodes + 1))
    if any(directory.glob("*.jsonl")):
        raise ConfigError(f"{directory} holds an older storm; name another with --out DIR")
    if faults is None:
        schedule = storm(seed, names, minutes, every_s=every_s, most_ended=most_ended, shape=shape)
        if not schedule.faults:
            raise ConfigError(f"{minutes:g} minutes are too short for a storm; take 1 or more")
    else:
        schedule = Schedule.read(faults)
        late = [f for f in schedule.faults if (f.at.seconds or 0.0) >= minutes * 60]
        if late:
            raise ConfigError(
                f"{faults}: {len(late)} faults come after {minutes * 60:g} s, when the storm is "
                "over; give more --minutes"
            )
    survivable(schedule, names)  # names that are not there, before anything starts
    args = tuple(script_args)
    if script is None:
        args = (*OUR_ARGS, "--out-dir", str(directory.resolve() / "training"), *args)
    return Settings(
        script=script or our_script(),
        script_args=args,
        cwd=None if script is None else Path.cwd(),
        nodes=names,
        schedule=schedule,
        seed=seed if faults is None else None,
        minutes=minutes,
        shape=shape,
        directory=directory,
        command=_command(
            script, script_args, nodes, minutes, seed, every_s, most_ended, faults, shape
        ),
    )


def _command(
    script: Path | None,
    script_args: Sequence[str],
    nodes: int,
    minutes: float,
    seed: int,
    every_s: float,
    most_ended: int,
    faults: Path | None,
    shape: Shape,
) -> str:
    words = ["lightning-chaos", "storm"]
    words += [] if script is None else ["--script", str(script)]
    words += ["--nodes", str(nodes), "--minutes", f"{minutes:g}"]
    if faults is None:
        words += ["--seed", str(seed), "--every", f"{every_s:g}", "--ended", str(most_ended)]
    else:
        words += ["--faults", str(faults)]
    if shape.rate_mbit is not None:
        words += ["--rate", f"{shape.rate_mbit:g}"]
    words += ["--delay", f"{shape.delay_ms:g}"]
    words += ["--", *script_args] if script_args else []
    return shlex.join(words)
