"""The rules of optimality (docs/planning.md), applied to a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from lightning_chaos.planning.pull import DonorLink, PullPlan, feed, plan_pull


def checked_pull(
    total_bytes: int,
    shard_bytes: int,
    donors: Sequence[DonorLink],
    ingress_bytes_per_s: float = math.inf,
) -> PullPlan:
    """What :func:`plan_pull` makes, held against the rules."""
    plan = plan_pull(total_bytes, shard_bytes, donors, ingress_bytes_per_s)
    if sum(donor.rate_bytes_per_s for donor in donors) > ingress_bytes_per_s:
        donors = [
            msgspec.structs.replace(donor, rate_bytes_per_s=rate)
            for donor, rate in zip(donors, feed(donors, ingress_bytes_per_s), strict=True)
            if rate > 0
        ]
    check_rules(plan, donors)
    return plan


def check_rules(plan: PullPlan, donors: Sequence[DonorLink]) -> None:
    """Fail if a plan is not the best, by each of the three rules.

    Args:
        plan: to be checked.
        donors: at the rates that the newcomer's cap leaves them; without those who have none.
    """

    def completion(donor: DonorLink, shard: int) -> float:
        return donor.release_s + shard * donor.shard_s(plan.shard_bytes)

    counts = plan.counts
    used = [donor for donor in donors if counts[donor.name]]
    assert sum(counts[donor.name] for donor in used) == sum(counts.values()) == plan.shards
    assert plan.ends_s == dict.fromkeys(counts, 0.0) | {
        donor.name: completion(donor, counts[donor.name]) for donor in used
    }
    assert plan.makespan_s == max(plan.ends_s.values())
    # sufficient: no shard would be there earlier as the next one of another donor
    assert plan.makespan_s <= min(completion(d, counts[d.name] + 1) for d in donors)
    # necessary and sufficient: fewer than K completions are earlier than the makespan
    assert sum(_earlier(plan, donor) for donor in donors) < plan.shards
    # a donor is used only if its first shard is there by then
    assert all(completion(d, 1) <= plan.makespan_s for d in used)


def _earlier(plan: PullPlan, donor: DonorLink) -> int:
    """How many shards a donor, sending without end, completes before the makespan."""
    period = donor.shard_s(plan.shard_bytes)
    guess = max(0, math.floor((plan.makespan_s - donor.release_s) / period) - 2)
    while donor.release_s + (guess + 1) * period < plan.makespan_s:
        guess += 1
    return guess
