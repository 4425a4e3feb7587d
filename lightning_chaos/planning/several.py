"""Several newcomers at once, who may pass on to each other what they have.

The state is cut into portions: one *enters by* each newcomer, who pulls it from the donors and
passes it on to the other newcomers shard by shard; one is *common*: each pulls it from the donors.
While m newcomers take all that u donors and they themselves can send, none is done before

    max( W / d_min,   W / sum u_old,   m * W / (sum u_old + sum u_new) )

with ``u`` the members' egress and ``d_min`` the least ingress, and portions in the right proportion
reach that in the fluid (Kumar and Ross, *Peer-assisted file distribution*, 2006).

**What is exact.**  One newcomer: the plan of :mod:`~lightning_chaos.planning.pull`.  Several, in
the fluid, where only caps limit and all are released at once: the proportions.  Whole shards then
cost at most a donor's longest period and two periods of the slowest portion more.

**What is a heuristic.**  Everything else: links narrower than the caps, links that are missing,
release times, overheads.  A plan without passing on is tried too and the better one is taken;
:attr:`SeveralPlan.bound_s` holds for every way of doing it, so their ratio is a guarantee.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning.completion import fluid, max_min, rounding
from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Graph
from lightning_chaos.planning.pull import DonorLink, check_pull, donors_of, plan_pull

Range = tuple[int, int]
Span = tuple[float, float]
"""From when to when, seconds."""


class SeveralPlan(msgspec.Struct, frozen=True):
    """Pull schedules of several newcomers."""

    shard_bytes: int
    shards: int
    ranges: dict[str, dict[str, tuple[Range, ...]]]
    """Newcomer -> source (donor or other newcomer) -> shards ``first <= index < end``, in the
    order they are sent; for each newcomer disjoint and all of them."""
    spans_s: dict[str, dict[str, Span]]
    """Of each newcomer and source: when the source may begin, and when it has sent its last."""
    ends_s: dict[str, float]
    """Predicted time at which each newcomer has everything."""
    makespan_s: float
    """The last of them."""
    bound_s: float
    """No schedule ends before, whoever passes on what."""


class _Portions(msgspec.Struct, frozen=True):
    """How fast each portion flows, bytes/s."""

    entry: list[float]
    """Into each newcomer, and from it on to each other one."""
    common: float
    """Into each newcomer."""


class _Scene(msgspec.Struct, frozen=True):
    """What there is to plan with."""

    graph: Graph
    newcomers: Sequence[str]
    donors: list[list[DonorLink]]
    """Of each newcomer."""
    overhead_s: float
    total_bytes: int
    shard_bytes: int

    def rate(self, sender: str, receiver: str) -> float:
        """What a link between newcomers carries, bytes/s; zero if there is none."""
        link = self.graph.links.get((sender, receiver))
        return link.rate_mbit * BYTES_PER_S_PER_MBIT if link else 0.0

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
    shard_bytes: int,
    graph: Graph,
    newcomers: Sequence[str],
    members: Sequence[str],
    releases_s: Mapping[str, float],
    overhead_s: float = 0.0,
) -> SeveralPlan:
    """Schedules by which all newcomers have the state early; see above for how early.

    Args:
        total_bytes: bytes of the state.
        shard_bytes: bytes per shard.
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
    scene = _Scene(graph, newcomers, donors, overhead_s, total_bytes, shard_bytes)
    for name, theirs in zip(newcomers, donors, strict=True):
        check_pull(total_bytes, shard_bytes, theirs, scene.down(name))
    bound_s = _bound(scene)
    plans = [_plan(scene, portions, bound_s) for portions in _proportions(scene)]
    return min(plans, key=lambda plan: plan.makespan_s)


def _proportions(scene: _Scene) -> Iterator[_Portions]:
    """The portions to try: all common; then, with several newcomers, as much passed on as pays."""
    m = len(scene.newcomers)
    sent = sum(scene.egress().values())
    narrowest = min(map(scene.down, scene.newcomers))
    yield _Portions([0.0] * m, min(sent / m, narrowest))
    if m == 1:
        return
    entry = []
    for newcomer, donors in zip(scene.newcomers, scene.donors, strict=True):
        others = [scene.rate(newcomer, other) for other in scene.newcomers if other != newcomer]
        taken = sum(donor.rate_bytes_per_s for donor in donors)
        entry.append(min(*others, scene.up(newcomer) / (m - 1), taken))
    passed = sum(entry)
    if passed == 0:
        return
    if passed > sent:
        entry = [rate * sent / passed for rate in entry]
        passed = sent
    common = (sent - passed) / m
    # All flows are slowed down alike where the newcomers cannot take in that much.
    slowed = min(1.0, narrowest / (passed + common))
    yield _Portions([rate * slowed for rate in entry], common * slowed)


def _plan(scene: _Scene, portions: _Portions, bound_s: float) -> SeveralPlan:
    size, newcomers = scene.shard_bytes, scene.newcomers
    shards = -(-scene.total_bytes // size)
    flows = [*portions.entry, portions.common]
    sizes, _ = rounding(shards, [_period(size, f) for f in flows], [0.0] * len(flows))
    firsts = list(itertools.accumulate(sizes, initial=0))
    ranges: dict[str, dict[str, tuple[Range, ...]]] = {name: {} for name in newcomers}
    spans: dict[str, dict[str, Span]] = {name: {} for name in newcomers}
    fed = _donor_rates(scene, portions)
    for j, newcomer in enumerate(newcomers):
        beside = sum(portions.entry) - portions.entry[j]
        parts = [(firsts[j], sizes[j]), (firsts[-2], sizes[-1])]
        taken, arrivals, ends_s = _direct(fed[j], parts, size, scene.down(newcomer) - beside)
        ranges[newcomer] |= taken
        spans[newcomer] |= {
            d.name: (d.release_s, ends_s[d.name]) for d in fed[j] if d.name in taken
        }
        if not sizes[j]:
            continue
        first_s, passed_s = _pass_on(arrivals, scene.overhead_s + _period(size, portions.entry[j]))
        for other in newcomers:
            if other != newcomer:
                latency_s = scene.graph.links[newcomer, other].latency_ms / 1e3
                ranges[other][newcomer] = ((firsts[j], firsts[j + 1]),)
                spans[other][newcomer] = first_s + latency_s, passed_s + latency_s
    ends = {name: max(end for _, end in spans[name].values()) for name in newcomers}
    return SeveralPlan(size, shards, ranges, spans, ends, max(ends.values()), bound_s)


def _donor_rates(scene: _Scene, portions: _Portions) -> list[list[DonorLink]]:
    """The donors of each newcomer at the rates that the other newcomers leave it.

    A donor's egress is divided in proportion to what the newcomers take directly.
    """
    fed: list[list[DonorLink]] = [[] for _ in scene.newcomers]
    for name, egress in scene.egress().items():
        to = [
            (j, donor)
            for j, donors in enumerate(scene.donors)
            for donor in donors
            if donor.name == name and portions.entry[j] + portions.common > 0
        ]
        shares = max_min(
            [donor.rate_bytes_per_s for _, donor in to],
            egress,
            [portions.entry[j] + portions.common for j, _ in to],
        )
        for (j, donor), share in zip(to, shares, strict=True):
            if share > 0:
                fed[j].append(msgspec.structs.replace(donor, rate_bytes_per_s=share))
    return fed


def _direct(
    donors: Sequence[DonorLink], parts: list[tuple[int, int]], size: int, ingress: float
) -> tuple[dict[str, tuple[Range, ...]], Iterator[float], dict[str, float]]:
    """What a newcomer pulls from the donors: the portion it passes on first, then the common one.

    Args:
        donors: at the rates they have for this newcomer.
        parts: first shard and number of shards of the two portions.
        size: bytes per shard.
        ingress: bytes/s that the newcomer has left for donors.

    Returns:
        Ranges per donor, when each shard of the first portion is there, when each donor is done.
    """
    counts: dict[str, int] = {donor.name: 0 for donor in donors}
    ranges: dict[str, tuple[Range, ...]] = {}
    arrivals: Iterator[float] = iter(())
    ends_s: dict[str, float] = {}
    so_far = 0
    for at, shards in parts:
        if not shards:
            continue
        so_far += shards
        plan = plan_pull(so_far * size, size, donors, ingress)
        # The greedy only adds: the counts for more shards are at least those for fewer.
        for name, count in plan.counts.items():
            if count > counts[name]:
                end = at + count - counts[name]
                ranges[name] = (*ranges.get(name, ()), (at, end))
                at = end
        counts, ends_s = plan.counts, plan.ends_s
        if so_far == parts[0][1]:
            arrivals = _arrivals(plan.counts, plan.ends_s, donors)
    return ranges, arrivals, ends_s


def _arrivals(
    counts: Mapping[str, int], ends_s: Mapping[str, float], donors: Sequence[DonorLink]
) -> Iterator[float]:
    """When the shards of a plan are there, one after another."""

    def of(donor: DonorLink) -> Iterator[float]:
        period = (ends_s[donor.name] - donor.release_s) / counts[donor.name]
        return (donor.release_s + n * period for n in range(1, counts[donor.name] + 1))

    return heapq.merge(*(of(donor) for donor in donors if counts[donor.name]))


def _pass_on(arrivals: Iterator[float], period_s: float) -> Span:
    """When the first shard is there, and the last is passed on, one after another as they come."""
    begin_s = end_s = next(arrivals)
    for arrival in itertools.chain((begin_s,), arrivals):
        end_s = max(end_s, arrival) + period_s
    return begin_s, end_s


def _bound(scene: _Scene) -> float:
    """What no schedule beats: each newcomer alone, what leaves the donors, what all send."""
    names, m = scene.newcomers, len(scene.newcomers)
    release: dict[str, float] = {}
    for donor in itertools.chain(*scene.donors):
        release[donor.name] = min(donor.release_s, release.get(donor.name, math.inf))
    egress = scene.egress()
    old, begun = [egress[name] for name in release], list(release.values())
    new = [min(scene.up(a), sum(scene.rate(a, b) for b in names if b != a)) for a in names]
    # a newcomer has nothing to pass on before the first donor has begun
    together = fluid(m * scene.total_bytes, old + new, begun + [min(begun)] * m)
    alone = (
        fluid(
            scene.total_bytes,
            [
                *(scene.shard_bytes / donor.shard_s(scene.shard_bytes) for donor in donors),
                *(min(scene.rate(other, name), scene.up(other)) for other in names),
            ],
            [*(donor.release_s for donor in donors), *[min(begun)] * m],
            scene.down(name),
        )
        for name, donors in zip(names, scene.donors, strict=True)
    )
    return max(together, fluid(scene.total_bytes, old, begun), *alone)


def _period(size: int, rate: float) -> float:
    return size / rate if rate > 0 else math.inf
