"""Which donor sends which shards, so that the newcomer has them all as early as possible.

Model.  A state is cut into ``K`` shards of ``s`` bytes.  Donor ``i`` may begin at ``r_i``, sends
``b_i`` bytes per second and loses ``h_i`` seconds per shard, so its j-th shard is there at
``r_i + j * p_i`` with ``p_i = h_i + s / b_i``.  Wanted: counts ``n_i`` with sum ``K`` whose
latest completion is least.

Earliest-completion greedy: give each shard to the donor that would complete it first.  That
merges the increasing sequences ``r_i + j * p_i``, so the k-th pick is the k-th smallest of all
completions and the last one is the optimum (*Learning in Chaos*, arXiv 2505.12815; the proof is
the merge itself: T is reachable if and only if at least K completions are <= T).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import msgspec

from lightning_chaos.errors import ConfigError

MIN_SHARD_BYTES = 64 << 10
MAX_SHARD_BYTES = 4 << 20
WANTED_SHARDS = 64


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
    """An optimal pull schedule."""

    shard_bytes: int
    shards: int
    counts: dict[str, int]
    """Shards per donor, in the order the donors were given; zero for one too slow to help."""
    ranges: dict[str, tuple[int, int]]
    """Shards ``first <= index < end`` of each donor: contiguous, disjoint, all of them."""
    makespan_s: float
    """Predicted time at which the last shard is there."""
    bound_s: float
    """Time in which no schedule of any shard size can end before (fluid solution)."""


def plan_pull(total_bytes: int, shard_bytes: int, donors: Sequence[DonorLink]) -> PullPlan:
    """The schedule of least makespan for equal shards; a short last shard counts as a whole one.

    Args:
        total_bytes: bytes to pull.
        shard_bytes: bytes per shard.
        donors: at least one, names all different; ties go to the first.

    Raises:
        ConfigError: no donor, two of one name, or a shard size that is not in 1..total_bytes.
    """
    if not donors:
        raise ConfigError("a pull needs at least one donor")
    names = [donor.name for donor in donors]
    if len(set(names)) != len(names):
        raise ConfigError(f"two donors have one name: {sorted(names)}")
    if not 0 < shard_bytes <= total_bytes:
        raise ConfigError(
            f"shards of {shard_bytes} bytes for {total_bytes} bytes; "
            "a shard must be positive and not larger than what is pulled"
        )
    shards = -(-total_bytes // shard_bytes)
    counts, makespan_s = _earliest_completion(shards, shard_bytes, donors)
    ranges: dict[str, tuple[int, int]] = {}
    first = 0
    for name, count in zip(names, counts, strict=True):
        ranges[name] = (first, first + count)
        first += count
    return PullPlan(
        shard_bytes=shard_bytes,
        shards=shards,
        counts=dict(zip(names, counts, strict=True)),
        ranges=ranges,
        makespan_s=makespan_s,
        bound_s=_fluid(total_bytes, shard_bytes, donors),
    )


def choose_shard_bytes(total_bytes: int) -> int:
    """The largest of 64 KiB, 128 KiB … 4 MiB that still cuts a state into 64 shards or more.

    A state too small for that gets the smallest.
    """
    size = MAX_SHARD_BYTES
    while size > MIN_SHARD_BYTES and -(-total_bytes // size) < WANTED_SHARDS:
        size //= 2
    return size


def _earliest_completion(
    shards: int, shard_bytes: int, donors: Sequence[DonorLink]
) -> tuple[list[int], float]:
    periods = [donor.shard_s(shard_bytes) for donor in donors]
    counts = [0] * len(donors)
    nexts = [(donor.release_s + periods[i], i) for i, donor in enumerate(donors)]
    heapq.heapify(nexts)
    completion = 0.0
    for _ in range(shards):
        completion, i = nexts[0]
        counts[i] += 1
        heapq.heapreplace(nexts, (donors[i].release_s + (counts[i] + 1) * periods[i], i))
    return counts, completion


def _fluid(total_bytes: int, shard_bytes: int, donors: Sequence[DonorLink]) -> float:
    """Least T with sum of (T - r_i)+ times donor i's effective rate = total_bytes."""
    speed = weighted = 0.0
    bound = math.inf
    for donor in sorted(donors, key=lambda d: d.release_s):
        if donor.release_s >= bound:
            break
        rate = shard_bytes / donor.shard_s(shard_bytes)
        speed += rate
        weighted += rate * donor.release_s
        bound = (total_bytes + weighted) / speed
    return bound
