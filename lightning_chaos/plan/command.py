"""The command: read a cluster, plan, print, draw."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.console import Console

from lightning_chaos.errors import ConfigError
from lightning_chaos.plan import tables
from lightning_chaos.plan.cluster_file import Cluster, read_cluster
from lightning_chaos.planning.policies import POLICIES, Outcome, Scene
from lightning_chaos.planning.pull import feed


@click.command()
@click.argument("cluster", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--policy",
    type=click.Choice(list(POLICIES)),
    default="chaos",
    show_default=True,
    help="Whose schedule to show.",
)
@click.option("--exact", is_flag=True, help="Also let a solver prove the best schedule.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the donors over time."
)
def plan(cluster: Path, policy: str, exact: bool, plot: Path | None) -> None:
    """Predict how a newcomer gets its state, under every policy.

    CLUSTER: a YAML file with members, newcomers and links, as in examples/clusters.
    """
    told = read_cluster(cluster)
    # Wide enough for every table where the output is no terminal; names are shown as they are.
    width = None if Console().is_terminal else 120
    console = Console(width=width, markup=False, emoji=False)
    if len(told.newcomers) > 1:
        if policy != "chaos" or exact or plot:
            raise ConfigError(
                f"{cluster}: --policy, --exact and --plot are for one newcomer, and here are "
                f"{len(told.newcomers)}: {', '.join(told.newcomers)}"
            )
        _show_several(told, console)
    else:
        _show_one(told, policy, exact, plot, console)


def _show_several(told: Cluster, console: Console) -> None:
    best = told.several()
    console.print(tables.several(best))
    console.print(tables.prediction(best.makespan_s, best.bound_s))


def _show_one(told: Cluster, policy: str, exact: bool, plot: Path | None, console: Console) -> None:
    (newcomer,) = told.newcomers
    scene = told.scene(newcomer)
    shown = POLICIES[policy](scene)
    console.print(tables.schedule(scene, newcomer, shown))
    console.print(tables.prediction(shown.transfer_s, tables.bound_s(scene)))
    if exact:
        console.print(_proved(scene))
    console.print(tables.comparison(scene, {name: _outcome(name, scene) for name in POLICIES}))
    if plot is not None:
        from lightning_chaos.plan.gantt import draw

        draw(scene, newcomer, shown, plot)
        console.print(f"chart: {plot}", soft_wrap=True)


def _outcome(name: str, scene: Scene) -> Outcome | str:
    """A policy's outcome, or why there is none."""
    try:
        return POLICIES[name](scene)
    except ConfigError as error:
        return str(error)


def _proved(scene: Scene) -> str:
    """What the solver says of the schedules at the rates that the newcomer can take in."""
    from lightning_chaos.planning.milp import prove

    fed = feed(scene.donors, scene.ingress_bytes_per_s)
    donors = [
        msgspec.structs.replace(donor, rate_bytes_per_s=rate)
        for donor, rate in zip(scene.donors, fed, strict=True)
        if rate > 0
    ]
    best = prove(scene.total_bytes, scene.sizes, donors)
    return (
        f"proved by {best.solver.upper()}: at these rates no schedule of whole shards ends before "
        f"{best.makespan_s:.6f} s (shards of {best.shard_bytes / 1024:g} KiB); "
        f"the greedy's ends at {POLICIES['chaos'](scene).transfer_s:.6f} s"
    )
