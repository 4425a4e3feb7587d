"""Into which size of shard a state is best cut, for given donors.

Sizes are a *divisibility chain*: each divides the one before.  Without overhead per shard a finer
size is never worse; with it the makespan falls and rises along the chain, in general more than
once, so that no binary search is sure.  But the fluid bound only rises towards finer sizes: once
it has reached the best makespan found, no finer size can be better.  That stop makes a scan exact
(docs/planning.md has the proofs).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning.pull import (
    MAX_SHARD_BYTES,
    MIN_SHARD_BYTES,
    DonorLink,
    PullPlan,
    plan_pull,
)


def shard_chain(total_bytes: int) -> tuple[int, ...]:
    """4 MiB, 2 MiB … 64 KiB, without those larger than the state; one shard if it is smaller."""
    doublings = (MAX_SHARD_BYTES // MIN_SHARD_BYTES).bit_length()
    sizes = (MAX_SHARD_BYTES >> i for i in range(doublings))
    return tuple(size for size in sizes if size <= total_bytes) or (total_bytes,)


def plan_over_chain(
    total_bytes: int,
    sizes: Sequence[int],
    donors: Sequence[DonorLink],
    ingress_bytes_per_s: float = math.inf,
) -> PullPlan:
    """The best plan over all shard sizes of a chain; ties go to the larger shard.

    Args:
        total_bytes: bytes to pull.
        sizes: bytes per shard, falling, each a divisor of the one before.
        donors: as in :func:`~lightning_chaos.planning.pull.plan_pull`.
        ingress_bytes_per_s: what the newcomer takes in from all donors together.

    Raises:
        ConfigError: sizes that are not such a chain, or what cannot be planned.
    """
    check_chain(sizes)
    best: PullPlan | None = None
    for size in sizes:
        plan = plan_pull(total_bytes, size, donors, ingress_bytes_per_s)
        if best is None or plan.makespan_s < best.makespan_s:
            best = plan
        if plan.bound_s >= best.makespan_s:
            break
    assert best is not None
    return best


def check_chain(sizes: Sequence[int]) -> None:
    """Refuse sizes that are not a divisibility chain.

    Raises:
        ConfigError: none, or one that is not positive or does not divide the one before.
    """
    if not sizes or min(sizes) <= 0:
        raise ConfigError(f"shard sizes must be positive, and at least one: {list(sizes)}")
    for coarse, fine in itertools.pairwise(sizes):
        if fine >= coarse or coarse % fine:
            raise ConfigError(
                f"shard sizes must fall, each a divisor of the one before: {fine} after {coarse}"
            )
