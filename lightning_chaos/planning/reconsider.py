"""Is there a better plan than the one in force, now that the links are known?"""

from __future__ import annotations

from typing import NamedTuple

from lightning_chaos.planning.graph import Graph
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
    best = plan_reduce(graph)
    now = predict(present, graph)
    return Reconsidered(best.plan, best.seconds(total_bytes), now.seconds(total_bytes))
