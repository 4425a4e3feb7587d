"""``lightning-chaos``: show a cluster at work, storm it, plan a pull, look at a run, end one."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from lightning_chaos import __version__
from lightning_chaos.errors import ChaosError, ConfigError, JoinError
from lightning_chaos.plan.command import plain_console, plan
from lightning_chaos.storm.command import storm
from lightning_chaos.testing.lab.commands import lab
from lightning_chaos.transport.address import Address, parse_address
from lightning_chaos.visit import ask_to_stop, look_around


class _Commands(click.Group):
    """Our own errors are one line on stderr and exit code 2, never a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ChaosError as error:
            click.echo(f"lightning-chaos: {error}", err=True)
            ctx.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lightning-chaos")
def main() -> None:
    """Train one model together on machines that come and go."""


@main.command()
@click.option(
    "--nodes", type=click.IntRange(2, 16), default=3, show_default=True, help="Nodes at the start."
)
@click.option(
    "--script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='Training script with Trainer(strategy="chaos"); our digits if not given.',
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the report there, as JSON.",
)
@click.option(
    "--keep-logs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the nodes' logs and output there; a new or empty one.",
)
@click.option(
    "--link-rate",
    type=click.FloatRange(min=1),
    default=200.0,
    show_default=True,
    help="Mbit/s that each link is paced to.",
)
@click.option(
    "--links",
    default="",
    help="Mbit/s of the newcomer's link to each node, as 200,100,50; through relays, and then no "
    "link is paced.",
)
@click.option("--replay", "replayed", is_flag=True, help="Then recompute it all in one process.")
@click.argument("script_args", nargs=-1, type=click.UNPROCESSED)
def demo(
    nodes: int,
    script: Path | None,
    json_path: Path | None,
    keep_logs: Path | None,
    link_rate: float,
    links: str,
    replayed: bool,
    script_args: Sequence[str],
) -> None:
    """Show a cluster on this machine that grows, is hurt and goes on.

    Arguments after -- go to the training script.  Exit code 1: a promise was not kept.
    """
    from lightning_chaos.demo.play import Settings, play, rates_of
    from lightning_chaos.demo.report import print_report, write_json

    # However the demo is ended, it ends the nodes it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console()
    settings = Settings(
        nodes,
        script,
        script_args,
        link_rate,
        keep_logs,
        replay=replayed,
        links_mbit=rates_of(links),
    )
    report = play(settings, console)
    print_report(report, console)
    if json_path is not None:
        write_json(report, json_path)
    sys.exit(0 if report.passed else 1)


main.add_command(plan)
main.add_command(lab)
main.add_command(storm)


@main.command()
@click.argument("log", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Where the training script is, if it has moved since the run.",
)
def replay(log: Path, script: Path | None) -> None:
    """Recompute a run in one process and compare the end, bit for bit.

    LOG: a node's run log, or the directory of several.  Exit code 1: the ends differ; 2: it cannot
    be replayed.
    """
    from lightning_chaos.replay.script import replay as run_again

    verdict = run_again(log, script)
    for line in verdict.lines():
        click.echo(line)
    sys.exit(0 if verdict.equal else 1)


def _the_run(_: click.Context, __: click.Parameter, run: str | None) -> str:
    """The run named, or the only one on this machine.

    Raises:
        ConfigError: there is none, or more than one.
    """
    from lightning_chaos.peer.discovery import live_runs

    if run is not None:
        return run
    runs = live_runs()
    if len(runs) == 1:
        return runs[0]
    if runs:
        raise ConfigError(f"several runs have nodes here: {', '.join(runs)}; choose with --run")
    raise ConfigError("no run has a node on this machine; name one with --run and --peer")


_RUN = click.option(
    "--run",
    envvar="CHAOS_RUN",
    show_envvar=True,
    callback=_the_run,
    help="Run id; the only one here if not given.",
)
_PEER = click.option("--peer", help="host:port of a node; found on this machine if not given.")


@main.command()
@_RUN
@_PEER
def stop(run: str, peer: str | None) -> None:
    """End a run: everywhere after the same round."""
    asked = asyncio.run(ask_to_stop(_addresses(run, peer), run, "lightning-chaos stop"))
    click.echo(f"asked {', '.join(asked)} to end run {run}")


@main.command()
@_RUN
@_PEER
def status(run: str, peer: str | None) -> None:
    """Show who is in a run, how its machines do, what its links carry."""
    from lightning_chaos.status import tables

    sight, gauges = asyncio.run(look_around(_addresses(run, peer), run))
    console = plain_console()
    for table in tables(sight, gauges):
        console.print(table)


def _addresses(run: str, peer: str | None) -> list[Address]:
    """Where to ask for the run.

    Raises:
        JoinError: no node of it is known on this machine.
    """
    if peer is not None:
        return [parse_address(peer)]
    from lightning_chaos.peer.discovery import DiscoveryDir

    found = [entry.address for entry in DiscoveryDir(run).entries()]
    if not found:
        raise JoinError(f"no node of run {run} is known on this machine; name one with --peer")
    return found


if __name__ == "__main__":
    main()
