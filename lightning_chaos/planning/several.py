"""Several newcomers at once, who may pass on to each other what they have.

Every part of the state goes to all newcomers over a tree: from donors, and through newcomers, shard
by shard (:mod:`~lightning_chaos.planning.multicast`).  While m newcomers take all that u donors and
they themselves can send, none is done before

    max( W / d_min,   W / sum u_old,   m * W / (sum u_old + sum u_new) )

with ``u`` the members' egress and ``d_min`` the least ingress, and trees in the right proportion
reach that (Kumar and Ross, *Peer-assisted file distribution*, 2006); where links are the narrow
places, too, they reach what is possible.

**What is exact.**  One newcomer: the plan of :mod:`~lightning_chaos.planning.pull`.  Several, in
the fluid without overhead, all released at once: the trees and their rates, over any links.  Whole
shards cost a period of each link on the longest way of a tree, and at most one of a tree more.

**What is a heuristic.**  Release times and overheads are left to the choice of counts.  A plan
without passing on is made too, and the better one is taken.  :attr:`SeveralPlan.bound_s` holds for
every way of doing it, so their ratio is a guarantee.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import msgspec

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning.completion import fluid, max_min, rounding
from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Graph
from lightning_chaos.planning.multicast import Mix, Network, Tree
from lightning_chaos.planning.pull import DonorLink, check_pull, donors_of, plan_pull

Range = tuple[int, int]
Span = tuple[float, float]
"""From when to when, seconds."""


class SeveralPlan(msgspec.Struct, frozen=True):
    """Pull schedules of several newcomers."""

    shard_bytes: int
    shards: int
    ranges: dict[str, dict[str, tuple[Range, ...]]]
    """Newcomer -> source (donor or other newcomer) -> shards ``first <= index < end``; for each
    newcomer disjoint and all of them.  Several ranges are sent at the same time."""
    spans_s: dict[str, dict[str, Span]]
    """Of each newcomer and source: when the source may begin, and when it has sent its last."""
    ends_s: dict[str, float]
    """Predicted time at which each newcomer has everything."""
    makespan_s: float
    """The last of them."""
    bound_s: float
    """No schedule ends before, whoever passes on what, in shards of whatever size."""


class _Scene(msgspec.Struct, frozen=True):
    """What there is to plan with."""

    graph: Graph
    newcomers: Sequence[str]
    donors: list[list[DonorLink]]
    """Of each newcomer."""
    overhead_s: float
    total_bytes: int

    def passing(self) -> dict[tuple[str, str], float]:
        """What links between newcomers carry, bytes/s."""
        links = self.graph.links
        return {
            pair: links[pair].rate_mbit * BYTES_PER_S_PER_MBIT
            for pair in itertools.permutations(self.newcomers, 2)
            if pair in links
        }

    def up(self, name: str) -> float:
        return self.graph.cap(name).up_mbit * BYTES_PER_S_PER_MBIT

    def down(self, name: str) -> float:
        return self.graph.cap(name).down_mbit * BYTES_PER_S_PER_MBIT

    def egress(self) -> dict[str, float]:
        """What each donor sends to all newcomers together, bytes/s."""
        links: dict[str, float] = {}
        for donor in itertools.chain(*self.donors):
            links[donor.name] = links.get(donor.name, 0.0) + donor.rate_bytes_per_s
        return {name: min(rate, self.up(name)) for name, rate in links.items()}


def plan_several(
    total_bytes: int,
    sizes: Sequence[int],
    graph: Graph,
    newcomers: Sequence[str],
    members: Sequence[str],
    releases_s: Mapping[str, float],
    overhead_s: float = 0.0,
) -> SeveralPlan:
    """Schedules by which all newcomers have the state early; see above for how early.

    Args:
        total_bytes: bytes of the state.
        sizes: bytes per shard, at least one; the best is taken.
        graph: the cluster; members and newcomers are in it.
        newcomers: at least one; each needs a link from a member.
        members: who has the state.
        releases_s: when members can begin, seconds from now; at once if not named.
        overhead_s: time lost per shard, seconds.

    Raises:
        ConfigError: no newcomer, one that is disconnected, or what cannot be planned.
    """
    if not newcomers or len(set(newcomers)) != len(newcomers) or set(newcomers) & set(members):
        raise ConfigError(
            f"newcomers {list(newcomers)}: at least one is needed, each once, none a member"
        )
    donors = [donors_of(graph, name, members, releases_s, overhead_s) for name in newcomers]
    scene = _Scene(graph, newcomers, donors, overhead_s, total_bytes)
    for size, (name, theirs) in itertools.product(sizes, zip(newcomers, donors, strict=True)):
        check_pull(total_bytes, size, theirs, scene.down(name))
    mix = _best_mix(scene)
    bound_s = _bound(scene, mix)
    plans = [_apart(scene, size, bound_s) for size in sizes]
    if len(newcomers) > 1:
        plans += [_over_trees(scene, size, mix, bound_s) for size in sizes]
    return min(plans, key=lambda plan: plan.makespan_s)


def _best_mix(scene: _Scene) -> Mix:
    links = scene.passing()
    for newcomer, donors in zip(scene.newcomers, scene.donors, strict=True):
        links |= {(donor.name, newcomer): donor.rate_bytes_per_s for donor in donors}
    up = {name: scene.up(name) for name in dict.fromkeys(sender for sender, _ in links)}
    return Network(
        scene.newcomers, links, up, {n: scene.down(n) for n in scene.newcomers}
    ).best_mix()


def _over_trees(scene: _Scene, size: int, mix: Mix, bound_s: float) -> SeveralPlan:
    """Each tree takes a range of shards; all are at work at the same time."""
    newcomers = scene.newcomers
    shards = -(-scene.total_bytes // size)
    trees = sorted(mix.rates, key=lambda tree: [scene.graph.members.index(name) for name in tree])
    periods = [scene.overhead_s + size / mix.rates[tree] for tree in trees]
    waits = [_waits(scene, tree, period) for tree, period in zip(trees, periods, strict=True)]
    counts, makespan_s = rounding(shards, periods, [max(wait.values()) for wait in waits])
    ranges: dict[str, dict[str, tuple[Range, ...]]] = {name: {} for name in newcomers}
    spans: dict[str, dict[str, Span]] = {name: {} for name in newcomers}
    firsts = itertools.accumulate(counts, initial=0)
    for tree, period, wait, (first, end) in zip(
        trees, periods, waits, itertools.pairwise(firsts), strict=True
    ):
        if first == end:
            continue
        for newcomer, source in zip(newcomers, tree, strict=True):
            span = wait[newcomer], wait[newcomer] + (end - first) * period
            before = spans[newcomer].get(source, span)
            spans[newcomer][source] = min(span[0], before[0]), max(span[1], before[1])
            ranges[newcomer][source] = _joined(ranges[newcomer].get(source, ()), (first, end))
    ends = {name: max(end for _, end in spans[name].values()) for name in newcomers}
    return SeveralPlan(size, shards, ranges, spans, ends, makespan_s, bound_s)


def _joined(ranges: tuple[Range, ...], more: Range) -> tuple[Range, ...]:
    """With one more, which may go on where the last one ends."""
    if ranges and ranges[-1][1] == more[0]:
        return (*ranges[:-1], (ranges[-1][0], more[1]))
    return (*ranges, more)


def _waits(scene: _Scene, tree: Tree, period_s: float) -> dict[str, float]:
    """When each newcomer's source begins with the first shard of a tree, a way's latency later."""
    sources = dict(zip(scene.newcomers, tree, strict=True))
    begins = {
        (donor.name, name): donor.release_s
        for name, donors in zip(scene.newcomers, scene.donors, strict=True)
        for donor in donors
    }

    def wait_s(name: str) -> float:
        source = sources[name]
        if source not in sources:
            return begins[source, name]
        return wait_s(source) + period_s + scene.graph.links[source, name].latency_ms / 1e3

    return {name: wait_s(name) for name in scene.newcomers}


def _apart(scene: _Scene, size: int, bound_s: float) -> SeveralPlan:
    """Everybody pulls from the donors alone, whose cards are shared fairly."""
    ranges: dict[str, dict[str, tuple[Range, ...]]] = {}
    spans: dict[str, dict[str, Span]] = {}
    ends: dict[str, float] = {}
    fed = shared_out(scene.donors, scene.egress())
    for name, donors in zip(scene.newcomers, fed, strict=True):
        plan = plan_pull(scene.total_bytes, size, donors, scene.down(name))
        used = [donor for donor in donors if plan.counts[donor.name]]
        ranges[name] = {donor.name: (plan.ranges[donor.name],) for donor in used}
        spans[name] = {donor.name: (donor.release_s, plan.ends_s[donor.name]) for donor in used}
        ends[name] = plan.makespan_s
    shards = -(-scene.total_bytes // size)
    makespan_s = max(ends.values())
    return SeveralPlan(size, shards, ranges, spans, ends, makespan_s, bound_s)


def shared_out(
    donors: Sequence[Sequence[DonorLink]], egress: Mapping[str, float]
) -> list[list[DonorLink]]:
    """The donors of each newcomer at the rates that the other newcomers leave it.

    Args:
        donors: of each newcomer, as if it were the only one.
        egress: bytes/s that each donor sends to all together; it is shared fairly.
    """
    wanted: dict[str, list[float]] = {}
    for donor in itertools.chain(*donors):
        wanted.setdefault(donor.name, []).append(donor.rate_bytes_per_s)
    shares = {name: iter(max_min(rates, egress[name])) for name, rates in wanted.items()}
    return [
        [
            msgspec.structs.replace(donor, rate_bytes_per_s=next(shares[donor.name]))
            for donor in theirs
        ]
        for theirs in donors
    ]


def _bound(scene: _Scene, mix: Mix) -> float:
    """What no schedule beats: the best trees, each newcomer alone, what leaves the donors."""
    release: dict[str, float] = {}
    for donor in itertools.chain(*scene.donors):
        release[donor.name] = min(donor.release_s, release.get(donor.name, math.inf))
    egress, passing = scene.egress(), scene.passing()
    # a newcomer has nothing to pass on before the first donor has begun
    begun_s = min(release.values())
    alone = (
        fluid(
            scene.total_bytes,
            [
                *(donor.rate_bytes_per_s for donor in donors),
                *(min(rate, scene.up(a)) for (a, b), rate in passing.items() if b == name),
            ],
            [
                *(donor.release_s for donor in donors),
                *(begun_s for _, b in passing if b == name),
            ],
            scene.down(name),
        )
        for name, donors in zip(scene.newcomers, scene.donors, strict=True)
    )
    leaving = fluid(scene.total_bytes, [egress[name] for name in release], list(release.values()))
    return max(begun_s + scene.total_bytes / mix.bound, leaving, *alone)
