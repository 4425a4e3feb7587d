"""The plan of a pull: made from what is known of the links, made anew when more is known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lightning_chaos.planning.pull import DonorLink, plan_pull
from lightning_chaos.protocol.values import Uid
from lightning_chaos.replication.candidate import Candidate
from lightning_chaos.replication.gauge import ASSUMED_BYTES_PER_S
from lightning_chaos.replication.goal import Goal

LOOK_AGAIN_S = 0.05
"""So often at least is a donor with nothing to do compared with those that may be late."""
_OFF = 1.25
"""A plan is outdated when a rate is off by that."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Which part of the state a newcomer asks the members for first.

    Of several that pull at the same time each begins with another part and passes on what comes.
    Then it takes what the others began with from the end, to meet what they pass on.
    """

    rank: int = 0
    """Of this newcomer among all of them."""
    of: int = 1

    def parts(self, indices: Sequence[int], shards: int) -> list[list[int]]:
        """These shards in the order to ask for them, one newcomer's part after another.

        Args:
            indices: lowest first.
            shards: of the whole state.
        """
        parts: list[list[int]] = [[] for _ in range(self.of)]
        for index in indices:
            parts[index * self.of // shards].append(index)
        others = (parts[(self.rank + k) % self.of] for k in range(1, self.of))
        return [parts[self.rank], *(part[::-1] for part in others)]


ALONE = Portion()


class Schedule:
    """Says what to ask of whom; times are seconds since the pull began.

    Args:
        goal: the state to pull.
        donors: all members that have it.
        portion: to begin with.
    """

    def __init__(self, goal: Goal, donors: Sequence[Candidate], portion: Portion = ALONE) -> None:
        self._goal = goal
        self._portion = portion
        self._donors = {donor.source.uid: donor for donor in donors}
        self.planned_s = 0.0
        """When the last plan was made."""
        self.predicted_s: float | None = None
        """When it expects the last shard; None as long as no rate is known, and if other newcomers
        may bring some: that is not planned."""

    def plan(self, donors: Sequence[Candidate], now_s: float) -> None:
        """Share out, by the exact schedule, what is still in the queues.

        A donor of which nothing is known counts as the fastest of the others: a train that a fast
        link brings all at once says nothing.

        Args:
            donors: at least one; those that serve the state, or may.
            now_s: the present.
        """
        work, size = self._goal.assignment, self._goal.manifest.shard_bytes
        queued = work.queued
        if not queued:
            return
        known = [rate for donor in donors if (rate := donor.gauge.bytes_per_s) is not None]
        assumed = max(known) if known else ASSUMED_BYTES_PER_S
        links = []
        for donor in donors:
            uid, rate = donor.share.uid, donor.gauge.bytes_per_s
            rate = assumed if rate is None else rate
            asked = work.under_way(uid)
            busy_s = donor.gauge.due_s(asked, size, now_s) - now_s if asked else donor.gauge.rtt_s
            links.append(DonorLink(uid, rate, release_s=busy_s))
        plan = plan_pull(len(queued) * size, size, links)
        alone = self._portion.of == 1
        for donor, link in zip(donors, links, strict=True):
            share = donor.share
            to_come = plan.counts[share.uid] + work.under_way(share.uid)
            share.planned_bytes = share.bytes + to_come * size if alone else None
            share.planned_bytes_per_s = link.rate_bytes_per_s if known else None
        parts = self._portion.parts(queued, self._goal.manifest.shards)
        work.plan_anew(_cut(parts, plan.counts))
        self.planned_s = now_s
        self.predicted_s = now_s + plan.makespan_s if known and alone else None

    def outdated(self, donor: Candidate, now_s: float) -> bool:
        """An answer of this donor shows, for the first time or otherwise, what it can send.

        Args:
            donor: that has just answered.
            now_s: the present.
        """
        if donor.gauge.certain and not donor.certain:
            donor.certain = True
            return True
        rate, counted = donor.gauge.bytes_per_s, donor.share.planned_bytes_per_s
        if rate is None or now_s - self.planned_s < max(LOOK_AGAIN_S, donor.gauge.rtt_s):
            return False
        return counted is None or not 1 / _OFF < rate / counted < _OFF

    def requests(self, donor: Candidate, now_s: float) -> Iterator[int]:
        """Shards to ask this donor for now, so that it has as much under way as it should."""
        work, uid, gauge = self._goal.assignment, donor.source.uid, donor.gauge
        size = self._goal.manifest.shard_bytes

        def due(uid: Uid, n: int) -> float:
            return self._donors[uid].gauge.due_s(n, size, now_s)

        ahead = self._goal.ahead(gauge.present_bytes_per_s, gauge.rtt_s)
        while work.under_way(uid) < ahead and (index := work.next(uid, due)) is not None:
            gauge.pace.asked(now_s)
            yield index


def _cut(parts: Sequence[Sequence[int]], counts: Mapping[Uid, int]) -> dict[Uid, list[int]]:
    """So many to each, a range of every part; they are as many as there are."""
    total = sum(counts.values())
    ends = [*itertools.accumulate(counts.values(), initial=0)]
    ranges: dict[Uid, list[int]] = {uid: [] for uid in counts}
    for part in parts:
        bounds = [round(len(part) * end / total) for end in ends]
        for uid, (first, end) in zip(counts, itertools.pairwise(bounds), strict=True):
            ranges[uid] += part[first:end]
    return ranges
