"""The command: read a cluster, plan, print, draw."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.console import Console

from lightning_chaos.errors import ConfigError
from lightning_chaos.plan import tables
from lightning_chaos.plan.at_once import Pull, at_once, summed_up
from lightning_chaos.plan.cluster_file import Cluster, read_cluster
from lightning_chaos.plan.gantt import Bar, draw
from lightning_chaos.planning.policies import POLICIES, Outcome, Scene
from lightning_chaos.planning.pull import feed
from lightning_chaos.planning.several import SeveralPlan

OURS = "chaos"


@click.command()
@click.argument("cluster", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--policy",
    type=click.Choice(list(POLICIES)),
    default=OURS,
    show_default=True,
    help="Whose schedule to show.",
)
@click.option("--exact", is_flag=True, help="Also let a solver prove the best schedule.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the donors over time."
)
def plan(cluster: Path, policy: str, exact: bool, plot: Path | None) -> None:
    """Predict how newcomers get their state, under every policy.

    CLUSTER: a YAML file with members, newcomers and links, as in examples/clusters.
    """
    told = read_cluster(cluster)
    # Wide enough for every table where the output is no terminal; names are shown as they are.
    width = None if Console().is_terminal else 120
    console = Console(width=width, markup=False, emoji=False)
    scenes = {newcomer: told.scene(newcomer) for newcomer in told.newcomers}
    together = told.several() if len(scenes) > 1 else None
    bound_s = together.bound_s if together else tables.bound_s(scenes[told.newcomers[0]])
    if together and policy == OURS:
        console.print(tables.several(together))
        end_s, bars = together.makespan_s, _together(together)
    else:
        pulls = at_once(policy, scenes, told.egress())
        for pull in pulls:
            console.print(tables.schedule(pull))
        end_s, bars = summed_up(pulls).transfer_s, _at_once(pulls)
    console.print(tables.prediction(end_s, bound_s))
    if exact:
        for newcomer, scene in scenes.items():
            console.print(_proved(newcomer, scene))
    found = {name: _outcome(name, told, scenes, together) for name in POLICIES}
    console.print(tables.comparison(bound_s, found))
    if plot is not None:
        if not bars:
            raise ConfigError(f"{policy} has no schedule of donors to draw")
        everybody = _listed(told)
        draw(f"{policy}: {everybody} has its state after {end_s:.3f} s", bars, bound_s, plot)
        console.print(f"chart: {plot}", soft_wrap=True)


def _listed(told: Cluster) -> str:
    return told.newcomers[0] if len(told.newcomers) == 1 else "each of " + ", ".join(told.newcomers)


def _outcome(
    name: str, told: Cluster, scenes: dict[str, Scene], together: SeveralPlan | None
) -> Outcome | str:
    """A policy's outcome, or why there is none."""
    if together and name == OURS:
        source = f"shards of {together.shard_bytes / 1024:g} KiB, passed on"
        return Outcome(name, source, together.makespan_s, together.makespan_s, {}, {})
    try:
        return summed_up(at_once(name, scenes, told.egress()))
    except ConfigError as error:
        return str(error)


def _together(plan: SeveralPlan) -> list[Bar]:
    """What goes to all newcomers, from donors and from each other."""
    return [
        Bar(
            f"{source} → {newcomer}",
            plan.spans_s[newcomer][source],
            sum(end - first for first, end in ranges) * plan.shard_bytes,
        )
        for newcomer, sources in plan.ranges.items()
        for source, ranges in sources.items()
    ]


def _at_once(pulls: list[Pull]) -> list[Bar]:
    """What the donors send to each newcomer; those that send nothing too."""
    return [
        Bar(
            donor.name if len(pulls) == 1 else f"{donor.name} → {pull.newcomer}",
            (donor.release_s, pull.outcome.ends_s[donor.name])
            if donor.name in pull.outcome.ends_s
            else None,
            pull.outcome.bytes_from.get(donor.name, 0),
        )
        for pull in pulls
        if pull.outcome.ends_s
        for donor in pull.scene.donors
    ]


def _proved(newcomer: str, scene: Scene) -> str:
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
        f"proved by {best.solver.upper()}: if {newcomer} pulls from donors alone and is the only "
        f"one, at these rates no schedule of whole shards ends before {best.makespan_s:.6f} s "
        f"(shards of {best.shard_bytes / 1024:g} KiB); "
        f"the greedy's ends at {POLICIES[OURS](scene).transfer_s:.6f} s"
    )
