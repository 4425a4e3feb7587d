"""Is there a better plan than the one in force, now that the links are known?

:mod:`lightning_chaos.planning.reduce` counts with so many small pieces that sums go up and results
come down at the same time.  A vector that goes as one bucket has no more pieces than its plan has
trees: a member sends a piece on only when it has the whole of it.  So plans are rehearsed here, the
best one with its pieces cut more and more finely: the finer, the less anybody waits, but the more
messages there are.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from lightning_chaos.planning.graph import Graph
from lightning_chaos.planning.reduce import finer_and_finer, predict
from lightning_chaos.planning.rehearsal import one_bucket_byte_s
from lightning_chaos.planning.values import ReducePlan

_FINEST = 4
_WORTH = 0.97
"""Finer pieces must promise that much of the time or less: they cost processors, too."""


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
    best, best_s = present, math.inf
    for made in itertools.islice(finer_and_finer(graph), _FINEST):
        made_s = seconds(made.plan, graph, total_bytes)
        if made_s > _WORTH * best_s:
            break
        best, best_s = made.plan, made_s
    return Reconsidered(best, best_s, seconds(present, graph, total_bytes))


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
    byte_s = max(1 / model.bytes_per_s, one_bucket_byte_s(plan, graph))
    return model.latency_s + total_bytes * byte_s
