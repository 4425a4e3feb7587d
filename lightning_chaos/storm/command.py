"""``lightning-chaos storm``: the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

REPORT = "report.html"


@click.command()
@click.option(
    "--script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='Training script with Trainer(strategy="chaos"); our digits if not given.',
)
@click.option(
    "--nodes", type=click.IntRange(2, 16), default=5, show_default=True, help="Nodes at the start."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How long the storm lasts.",
)
@click.option(
    "--seed", type=int, default=7, show_default=True, help="The faults are drawn from it."
)
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0.5),
    default=8.0,
    show_default=True,
    help="Seconds between two faults, on average.",
)
@click.option(
    "--ended",
    "most_ended",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Most faults that end a process.",
)
@click.option(
    "--faults",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file with the faults, instead of drawn ones (docs/lab.md).",
)
@click.option("--rate", type=float, default=100.0, show_default=True, help="Mbit/s of each link.")
@click.option("--delay", type=float, default=10.0, show_default=True, help="Milliseconds one way.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for report, logs and output.  [default: storm-SEED, storm-FAULTS]",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the report's figures there.",
)
@click.argument("script_args", nargs=-1, type=click.UNPROCESSED)
def storm(
    script: Path | None,
    nodes: int,
    minutes: float,
    seed: int,
    every_s: float,
    most_ended: int,
    faults: Path | None,
    rate: float,
    delay: float,
    out: Path | None,
    json_path: Path | None,
    script_args: Sequence[str],
) -> None:
    """Run a script under many faults; report what they cost.

    Nodes are killed, stopped, sent away and started; links are cut and throttled; then everything
    is healed and the run is asked to end.  Ctrl-C does so at once.  Arguments after -- go to the
    script, which should train longer than the storm lasts.  Exit code 1: the run did not live
    through what it must, or a promise was not kept.
    """
    from rich.console import Console

    from lightning_chaos.demo.board import Board
    from lightning_chaos.storm.figures import as_json, gather
    from lightning_chaos.storm.interrupts import Interrupts
    from lightning_chaos.storm.page import headline, render
    from lightning_chaos.storm.play import play
    from lightning_chaos.storm.screen import Screen
    from lightning_chaos.storm.settings import prepare
    from lightning_chaos.testing.lab.conditions import Shape

    directory = out or Path(f"storm-{seed}" if faults is None else f"storm-{faults.stem}")
    settings = prepare(
        script=script,
        script_args=script_args,
        nodes=nodes,
        minutes=minutes,
        seed=seed,
        every_s=every_s,
        most_ended=most_ended,
        faults=faults,
        shape=Shape(rate_mbit=rate, delay_ms=delay),
        directory=directory,
    )
    board = Board(settings.command, settings.nodes, time.time())
    with Interrupts() as interrupts, Screen(Console(), board) as screen:
        played = play(settings, screen, interrupts)
    figures = gather(played.events, played.truth, played.facts)
    (directory / REPORT).write_text(render(figures), "utf-8")
    if json_path is not None:
        json_path.write_bytes(as_json(figures))
    click.echo(headline(figures))
    for failure in figures.verdict.failures:
        click.echo(f"FAILED: {failure.what}")
    if reason := figures.facts.not_survivable:
        click.echo(f"The schedule need not be lived through: {reason}")
    click.echo(f"report: {directory / REPORT}")
    if not figures.verdict.passed:
        sys.exit(1)
    sys.exit(128 + interrupts.got if interrupts.got else 0)
