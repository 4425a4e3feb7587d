"""Is there a better plan than the one in force, now that the links are known?

:mod:`lightning_chaos.planning.reduce` counts with so many small pieces that sums go up and results
come down at the same time.  A vector that goes as one bucket has no more pieces than its plan has
trees: the first result of an edge comes down only when its first piece is up.  So beside the load
of the slowest link stands here what goes up over the busiest way, and then, for want of pieces,
the first part of what comes down.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Graph
from lightning_chaos.planning.reduce import plan_reduce, predict
from lightning_chaos.planning.values import ReducePlan


class Reconsidered(NamedTuple):
    """The best plan beside the present one, both on the same links."""

    plan: ReducePlan
    seconds: float
    """What it promises for the vector asked about."""
    present_s: float
    """What the present one does."""


def reconsider(present: ReducePlan, graph: Graph, total_bytes: int) -> Reconsidered:
    """The best plan for these links, and what it is worth.

    Args:
        present: the plan in force.
        graph: the cluster as measured; members oldest first, as in the view.
        total_bytes: length of the vector that is reduced.

    Raises:
        PlanError: the links do not join all members, or the present plan uses one that is not
            there.
    """
    best = plan_reduce(graph).plan
    return Reconsidered(
        best, seconds(best, graph, total_bytes), seconds(present, graph, total_bytes)
    )


def seconds(plan: ReducePlan, graph: Graph, total_bytes: int) -> float:
    """What a reduction takes as one bucket, seconds.

    Args:
        plan: without a fault.
        graph: the cluster; members oldest first, as in the view.
        total_bytes: length of the vector.

    Raises:
        PlanError: the plan uses a link that is not there.
    """
    model = predict(plan, graph)
    byte_s = max(1 / model.bytes_per_s, _one_bucket_byte_s(plan, graph))
    return model.latency_s + total_bytes * byte_s


def _one_bucket_byte_s(plan: ReducePlan, graph: Graph) -> float:
    """Seconds a byte where the busiest way is, with as many pieces as it has; see the module."""
    names, total = graph.members, sum(plan.shares)
    up: Counter[tuple[int, int]] = Counter()
    pieces: Counter[tuple[int, int]] = Counter()
    for tree, share in zip(plan.trees, plan.shares, strict=True):
        for way in tree.links(plan.members):
            up[way] += share
            pieces[way] += 1
    slowest_s = 0.0
    for (a, b), share in up.items():
        there = graph.links[names[a], names[b]].rate_mbit * BYTES_PER_S_PER_MBIT
        back = graph.links[names[b], names[a]].rate_mbit * BYTES_PER_S_PER_MBIT
        up_s, down_s = share / total / there, share / total / back
        whole, rest = max(up_s, down_s), min(up_s, down_s)
        slowest_s = max(slowest_s, whole + rest / pieces[a, b])
    return slowest_s
