"""Equal shards and senders of different speed: when is the last shard there, at the earliest?

Sender ``i`` may begin at ``r_i`` and completes one shard every ``p_i`` seconds, so its j-th is
there at ``r_i + j * p_i``.  ``K`` shards are there by time T if and only if at least K of all
these completions are at most T; so the least T is the **K-th smallest completion**, and whoever
always picks the smallest one left has it (*Learning in Chaos*, arXiv 2505.12815; proofs in
docs/planning.md).  Two ways to pick, one result:

* :func:`greedy` picks one at a time, from a heap: O(K log n).
* :func:`rounding` takes from each sender, in one go, nearly all that it would send by the
  *fluid* time (shards cut at will), which are surely among the K smallest, and picks the at most
  2n + 1 that are left from the heap: O(n log n), whatever K is.

Times are seconds.  An infinite period is a sender that sends nothing.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence


def greedy(
    shards: int, periods: Sequence[float], releases: Sequence[float]
) -> tuple[list[int], float]:
    """Shards of each sender and the least time by which all are there; ties go to the first.

    Args:
        shards: K > 0.
        periods: ``p_i``, positive; at least one finite.
        releases: ``r_i``, of either sign.
    """
    return _pick([0] * len(periods), shards, periods, releases)


def rounding(
    shards: int, periods: Sequence[float], releases: Sequence[float]
) -> tuple[list[int], float]:
    """The same as :func:`greedy`, in time that does not grow with the number of shards."""
    ideal_s = fluid(shards, [1 / p for p in periods], releases)
    counts = [0] * len(periods)
    left = shards
    for i, (period, release) in enumerate(zip(periods, releases, strict=True)):
        # One less than fits: what is rounded in a float never takes a shard too many.
        counts[i] = min(left, max(0, int((ideal_s - release) / period) - 1))
        left -= counts[i]
    return _pick(counts, left, periods, releases)


def fluid(
    work: float, speeds: Sequence[float], releases: Sequence[float], cap: float = math.inf
) -> float:
    """Time at which so much is done if work can be cut at will: a bound for whole shards.

    Least T at which the integral of min(cap, speed of those that have begun) reaches ``work``.

    Args:
        work: what is to be done, in any unit.
        speeds: of each sender, units per second; at least one positive.
        releases: when each may begin.
        cap: what the receiver takes in, units per second.
    """
    now = done = speed = 0.0
    for release, more in sorted(zip(releases, speeds, strict=True)):
        taken = min(speed, cap)
        if taken > 0:
            end = now + (work - done) / taken
            if end <= release:
                return end
            done += taken * (release - now)
        now = release
        speed += more
    return now + (work - done) / min(speed, cap)


def max_min(
    wanted: Sequence[float], budget: float, weights: Sequence[float] | None = None
) -> list[float]:
    """Fair shares of a budget: as much as wanted, or as much per weight as all who want more.

    Args:
        wanted: the most that each can use, not negative.
        budget: what there is.
        weights: positive; equal if not given.
    """
    weights = weights or [1.0] * len(wanted)
    shares = [0.0] * len(wanted)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i] / weights[i])
    waiting = [*itertools.accumulate(weights[i] for i in reversed(order))][::-1]
    for i, still in zip(order, waiting, strict=True):
        shares[i] = min(wanted[i], budget * weights[i] / still)
        budget = max(0.0, budget - shares[i])
    return shares


def _pick(
    counts: list[int], left: int, periods: Sequence[float], releases: Sequence[float]
) -> tuple[list[int], float]:
    """Pick the ``left`` smallest completions after those counted; ``left`` > 0."""
    nexts = [(releases[i] + (counts[i] + 1) * period, i) for i, period in enumerate(periods)]
    heapq.heapify(nexts)
    completion = 0.0
    for _ in range(left):
        completion, i = nexts[0]
        counts[i] += 1
        heapq.heapreplace(nexts, (releases[i] + (counts[i] + 1) * periods[i], i))
    return counts, completion
