"""The plan of a pull: made from what is known of the links, made anew when more is known."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_chaos.planning.pull import DonorLink, plan_pull
from lightning_chaos.replication.candidate import Candidate
from lightning_chaos.replication.goal import Goal

_ASSUMED_BYTES_PER_S = 12.5e6
"""Where nothing is known of any link; that they are alike is all that counts then."""


class Schedule:
    """Plans what of a goal is not asked for yet.

    Args:
        goal: the state to pull.
    """

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self.planned_s = 0.0
        """When the last plan was made, seconds since the pull began."""
        self.predicted_s: float | None = None
        """When it expects the last shard; None as long as no rate is known."""

    def plan(self, donors: Sequence[Candidate], now_s: float) -> None:
        """Share out, by the exact schedule, what is still in the queues.

        A donor of which nothing is known counts as the fastest of the others: a train that a fast
        link brings all at once says nothing.

        Args:
            donors: at least one; those that serve the state, or may.
            now_s: seconds since the pull began.
        """
        work, size = self._goal.assignment, self._goal.manifest.shard_bytes
        queued = work.queued
        if not queued:
            return
        known = [rate for donor in donors if (rate := donor.gauge.bytes_per_s) is not None]
        assumed = max(known) if known else _ASSUMED_BYTES_PER_S
        links = []
        for donor in donors:
            uid, rate = donor.share.uid, donor.gauge.bytes_per_s
            rate = assumed if rate is None else rate
            busy_s = work.under_way(uid) * size / rate
            links.append(DonorLink(uid, rate, release_s=busy_s or donor.gauge.rtt_s))
        plan = plan_pull(len(queued) * size, size, links)
        for donor, link in zip(donors, links, strict=True):
            share = donor.share
            to_come = plan.counts[share.uid] + work.under_way(share.uid)
            share.planned_bytes = share.bytes + to_come * size
            share.planned_bytes_per_s = link.rate_bytes_per_s if known else None
        work.plan_anew({uid: queued[first:end] for uid, (first, end) in plan.ranges.items()})
        self.planned_s = now_s
        self.predicted_s = now_s + plan.makespan_s if known else None
