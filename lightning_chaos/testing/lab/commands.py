"""``lightning-chaos lab``: a network in one machine, from the command line."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from lightning_chaos.errors import ConfigError

CUBIC = "cubic"
_DELAY = click.option(
    "--delay", type=click.FloatRange(min=0), default=10.0, show_default=True, help="One way, ms."
)
_CONGESTION = click.option(
    "--congestion",
    help="How TCP between namespaces controls congestion: cubic (the default), reno, bbr.",
)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """However the command is ended, it takes down what it put up."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group()
@click.pass_context
def lab(ctx: click.Context) -> None:
    """A network in one machine: hosts, links and faults."""
    ctx.with_resource(_terminable())


@lab.command()
@click.option(
    "--hosts", type=click.IntRange(2, 64), default=5, show_default=True, help="How many there are."
)
@click.option(
    "--rate", type=float, default=200.0, show_default=True, help="Mbit/s of each link, each way."
)
@_DELAY
@_CONGESTION
@click.option(
    "--pattern",
    type=click.Choice(["into-one", "mesh"]),
    default="into-one",
    show_default=True,
    help="All into the first host, or each to each.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=4.0,
    show_default=True,
    help="How long each rate is measured.",
)
def calibrate(
    hosts: int, rate: float, delay: float, congestion: str | None, pattern: str, seconds: float
) -> None:
    """Measure links between namespaces beside what they were told (root).

    Exit code 1: a link is off by more than 5 %.
    """
    from lightning_chaos.testing.lab.conditions import Shape
    from lightning_chaos.testing.lab.wan import calibration
    from lightning_chaos.testing.lab.wan.namespaces import Namespaces

    shape = Shape(rate_mbit=rate, delay_ms=delay)
    nodes = [f"n{number}" for number in range(1, hosts + 1)]
    into_one = pattern == "into-one"
    pairs = calibration.into(nodes[0], nodes) if into_one else calibration.mesh(nodes)
    with Namespaces(hosts, congestion=congestion or CUBIC) as network:
        network.shape(shape)
        found = calibration.calibrate(network, pairs, seconds=seconds)
    click.echo("\n".join(found.lines()))
    sys.exit(0 if found.ok else 1)


@lab.command()
@click.option(
    "--hosts", type=click.IntRange(1, 64), default=3, show_default=True, help="Nodes at the start."
)
@click.option("--rate", type=float, help="Mbit/s of each link, each way; no limit if not given.")
@_DELAY
@click.option(
    "--jitter", type=float, default=0.0, show_default=True, help="The delay varies so much, ± ms."
)
@click.option(
    "--loss",
    type=float,
    default=0.0,
    show_default=True,
    help="Packets of 100 lost; not with --relays.",
)
@_CONGESTION
@click.option("--relays", is_flag=True, help="Relays instead of namespaces: without root.")
@click.option(
    "--faults",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A schedule in YAML (docs/lab.md).",
)
@click.option(
    "--keep-logs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the nodes' logs and output there; a new or empty one.",
)
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("script_args", nargs=-1, type=click.UNPROCESSED)
def run(
    hosts: int,
    rate: float | None,
    delay: float,
    jitter: float,
    loss: float,
    congestion: str | None,
    relays: bool,
    faults: Path | None,
    keep_logs: Path | None,
    script: Path,
    script_args: Sequence[str],
) -> None:
    """Run SCRIPT once per host, with faults.

    Arguments after -- go to it.  Nodes are n1, n2, ...  Exit code 1: a node that nobody killed
    failed, or faults were left.
    """
    from lightning_chaos.testing.lab.conditions import Shape
    from lightning_chaos.testing.lab.faults import Schedule
    from lightning_chaos.testing.lab.session import NO_FAULTS, Plan, perform

    if relays and congestion:
        raise ConfigError("--congestion is for namespaces: relays dial as this machine does")
    plan = Plan(
        script,
        script_args,
        hosts=hosts,
        shape=Shape(rate_mbit=rate, delay_ms=delay, jitter_ms=jitter, loss_percent=loss),
        schedule=Schedule.read(faults) if faults else NO_FAULTS,
        relays=relays,
        congestion=congestion or CUBIC,
        directory=keep_logs,
    )
    sys.exit(0 if perform(plan, click.echo) else 1)


@lab.command()
@click.argument("schedule", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--nodes", type=click.IntRange(min=1), required=True, help="n1, n2, ... at first.")
@click.option("--relays", is_flag=True, help="All on one host, where a death is known for sure.")
def check(schedule: Path, nodes: int, relays: bool) -> None:
    """Whether a run must survive a SCHEDULE of faults.

    Exit code 1: it need not; says after which fault, and why.
    """
    from lightning_chaos.testing.lab.faults import Schedule
    from lightning_chaos.testing.lab.survival import survivable

    names = [f"n{number}" for number in range(1, nodes + 1)]
    verdict = survivable(Schedule.read(schedule), names, one_host=relays)
    if verdict.survives:
        click.echo(f"survivable; members at the end: {', '.join(verdict.members)}")
    else:
        click.echo(f"not survivable, {verdict.reason}")
    sys.exit(0 if verdict.survives else 1)
