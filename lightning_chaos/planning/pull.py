"""Which donor sends which shards, so that the newcomer has them all as early as possible.

Model.  A state of ``W`` bytes is cut into ``K`` shards of ``s`` bytes.  Donor ``i`` may begin at
``r_i``, sends ``b_i`` bytes per second and loses ``h_i`` seconds per shard, so its j-th shard is
there at ``r_i + j * p_i`` with ``p_i = h_i + s / b_i``.  Wanted: counts ``n_i`` with sum ``K``
whose latest completion is least.  :mod:`~lightning_chaos.planning.completion` solves that exactly.

**What is exact.**  The counts, for these rates, release times and overheads: no schedule of whole
shards of this size ends earlier.  A short last shard counts as a whole one.

**What is not.**  With an ingress cap the rates become a part of the problem.  They are chosen here
so that nothing is lost in the fluid (the donors released first are fed first; those released
together get max-min shares, as TCP gives them), which is optimal for fluid and h = 0; for whole
shards the makespan is at most the fluid time at these rates plus the longest period of a donor.
:attr:`PullPlan.bound_s` says for every plan how far from the best it can be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import msgspec

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning.completion import fluid, max_min, rounding
from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Graph

MIN_SHARD_BYTES = 64 << 10
MAX_SHARD_BYTES = 4 << 20
WANTED_SHARDS = 256
"""With so many, a plan with rates four times wrong costs 5 % in the mean (tests, virtual time);
with requests under way all the time a shard has next to no overhead."""


class DonorLink(msgspec.Struct, frozen=True):
    """What the schedule knows of a donor and the link to it.

    Raises:
        ConfigError: a rate that is not positive and finite, or a negative time.
    """

    name: str
    rate_bytes_per_s: float
    release_s: float = 0.0
    """Earliest time at which the donor can begin, seconds from now."""
    overhead_s: float = 0.0
    """Time lost per shard, seconds (zero when requests are pipelined)."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_bytes_per_s) and self.rate_bytes_per_s > 0):
            raise ConfigError(
                f"donor {self.name}: {self.rate_bytes_per_s} bytes/s is not a rate; "
                "it must be positive and finite"
            )
        for what, value in (("release", self.release_s), ("overhead", self.overhead_s)):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"donor {self.name}: {what} of {value} s; it must be finite and not negative"
                )

    def shard_s(self, shard_bytes: int) -> float:
        """Seconds from one completion of this donor to its next (``p_i``)."""
        return self.overhead_s + shard_bytes / self.rate_bytes_per_s


class PullPlan(msgspec.Struct, frozen=True):
    """A pull schedule."""

    shard_bytes: int
    shards: int
    counts: dict[str, int]
    """Shards per donor, in the order the donors were given; zero for one too slow to help."""
    ranges: dict[str, tuple[int, int]]
    """Shards ``first <= index < end`` of each donor: contiguous, disjoint, all of them."""
    ends_s: dict[str, float]
    """Predicted time at which each donor has sent its last shard; zero for one without any."""
    makespan_s: float
    """Predicted time at which the last shard is there."""
    bound_s: float
    """Fluid solution: no schedule with shards of this size, or of a finer one, ends earlier."""


def plan_pull(
    total_bytes: int,
    shard_bytes: int,
    donors: Sequence[DonorLink],
    ingress_bytes_per_s: float = math.inf,
) -> PullPlan:
    """The schedule of least makespan for equal shards; a short last shard counts as a whole one.

    Args:
        total_bytes: bytes to pull.
        shard_bytes: bytes per shard.
        donors: at least one, names all different; ties go to the first.
        ingress_bytes_per_s: what the newcomer takes in from all donors together.

    Raises:
        ConfigError: nothing to pull, no donor, two of one name, a shard size that is not in
            1..total_bytes, or an ingress that is not positive.
    """
    check_pull(total_bytes, shard_bytes, donors, ingress_bytes_per_s)
    shards = -(-total_bytes // shard_bytes)
    releases = [donor.release_s for donor in donors]
    periods = [donor.shard_s(shard_bytes) for donor in donors]
    bound_s = fluid(total_bytes, [shard_bytes / p for p in periods], releases, ingress_bytes_per_s)
    if sum(donor.rate_bytes_per_s for donor in donors) > ingress_bytes_per_s:
        fed = feed(donors, ingress_bytes_per_s)
        periods = [
            donor.overhead_s + shard_bytes / rate if rate > 0 else math.inf
            for donor, rate in zip(donors, fed, strict=True)
        ]
    counts, makespan_s = rounding(shards, periods, releases)
    names = [donor.name for donor in donors]
    firsts = itertools.accumulate(counts, initial=0)
    return PullPlan(
        shard_bytes=shard_bytes,
        shards=shards,
        counts=dict(zip(names, counts, strict=True)),
        ranges=dict(zip(names, itertools.pairwise(firsts), strict=True)),
        ends_s={
            name: release + count * period if count else 0.0
            for name, release, count, period in zip(names, releases, counts, periods, strict=True)
        },
        makespan_s=makespan_s,
        bound_s=bound_s,
    )


def feed(donors: Sequence[DonorLink], ingress_bytes_per_s: float) -> list[float]:
    """Rates that a receiver's cap leaves to its donors, bytes/s, in their order.

    Donors released first are fed first, so at every time the sum is what the cap and those
    released allow: the fluid bound is reached.  Those released together get max-min shares.
    """
    rates = [0.0] * len(donors)
    order = sorted(range(len(donors)), key=lambda i: donors[i].release_s)
    left = ingress_bytes_per_s
    for _, group in itertools.groupby(order, key=lambda i: donors[i].release_s):
        together = list(group)
        shares = max_min([donors[i].rate_bytes_per_s for i in together], left)
        for i, share in zip(together, shares, strict=True):
            rates[i] = share
        left = max(0.0, left - sum(shares))
    return rates


def donors_of(
    graph: Graph,
    newcomer: str,
    members: Sequence[str],
    releases_s: Mapping[str, float],
    overhead_s: float = 0.0,
) -> list[DonorLink]:
    """The members that a newcomer can pull from, and how fast.

    A donor's rate is its link's or its egress cap, whichever is less.  Its first byte can be there
    after its release and one round trip: the request's way to it (taken to be as long) and back.

    Args:
        graph: the cluster; the newcomer is in it.
        newcomer: who pulls.
        members: who has the state; those without a link to the newcomer are left out.
        releases_s: when members can begin, seconds from now; at once if not named.
        overhead_s: time lost per shard, seconds.

    Raises:
        ConfigError: no member has a link to the newcomer, or a release that cannot be.
    """
    donors = [
        DonorLink(
            name,
            min(link.rate_mbit, graph.cap(name).up_mbit) * BYTES_PER_S_PER_MBIT,
            releases_s.get(name, 0.0) + 2 * link.latency_ms / 1e3,
            overhead_s,
        )
        for name in members
        if (link := graph.links.get((name, newcomer))) is not None
    ]
    if not donors:
        raise ConfigError(
            f"newcomer {newcomer} is disconnected: no member has a link to it, so it can pull "
            "from nobody"
        )
    return donors


def choose_shard_bytes(total_bytes: int) -> int:
    """The largest of 64 KiB, 128 KiB … 4 MiB that still cuts a state into 256 or more.

    A state too small for that gets the smallest.
    """
    size = MAX_SHARD_BYTES
    while size > MIN_SHARD_BYTES and -(-total_bytes // size) < WANTED_SHARDS:
        size //= 2
    return size


def check_pull(
    total_bytes: int, shard_bytes: int, donors: Sequence[DonorLink], ingress_bytes_per_s: float
) -> None:
    """Refuse what cannot be planned.

    Raises:
        ConfigError: see :func:`plan_pull`.
    """
    if not donors:
        raise ConfigError("a pull needs at least one donor")
    if len({donor.name for donor in donors}) != len(donors):
        raise ConfigError(f"two donors have one name: {sorted(d.name for d in donors)}")
    if total_bytes <= 0:
        raise ConfigError(f"a state of {total_bytes} bytes is empty: there is nothing to pull")
    if not 0 < shard_bytes <= total_bytes:
        raise ConfigError(
            f"shards of {shard_bytes} bytes for {total_bytes} bytes; "
            "a shard must be positive and not larger than what is pulled"
        )
    if not ingress_bytes_per_s > 0:
        raise ConfigError(
            f"a newcomer that takes in {ingress_bytes_per_s} bytes/s can pull nothing; "
            "its cap must be positive"
        )
