"""The cheapest tree of directed links from a root to all nodes (Chu and Liu 1965, Edmonds 1967)."""

from __future__ import annotations

from collections.abc import Mapping

ROOT = -1
_Costs = dict[tuple[int, int], float]
"""Of a link (from, to)."""


def least_arborescence(count: int, costs: Mapping[tuple[int, int], float]) -> list[int]:
    """The parent of every node in the cheapest tree from :data:`ROOT` to all.

    Args:
        count: nodes, 0 … count - 1.
        costs: (from, to) -> cost; each node can be reached from :data:`ROOT`.
    """
    parents = _least(frozenset(range(count)), dict(costs), count)
    return [parents[node] for node in range(count)]


def _least(nodes: frozenset[int], costs: _Costs, fresh: int) -> dict[int, int]:
    """By contracting circles of cheapest links; ``fresh`` names the next node that stands for one.

    As long as everybody's cheapest link makes a circle, it counts as one node: who enters it at a
    member saves that member's link.
    """
    parents: dict[int, int] = {}
    for (sender, receiver), cost in costs.items():
        if receiver not in parents or cost < costs[parents[receiver], receiver]:
            parents[receiver] = sender
    circle = _circle(nodes, parents)
    if not circle:
        return parents
    joint: _Costs = {}
    ends: dict[tuple[int, int], tuple[int, int]] = {}
    for (sender, receiver), cost in costs.items():
        if sender in circle and receiver in circle:
            continue
        link = fresh if sender in circle else sender, fresh if receiver in circle else receiver
        if receiver in circle:
            cost -= costs[parents[receiver], receiver]
        if link not in joint or cost < joint[link]:
            joint[link], ends[link] = cost, (sender, receiver)
    above = _least((nodes - circle) | {fresh}, joint, fresh + 1)
    found = {node: parents[node] for node in circle}
    for node, parent in above.items():
        sender, receiver = ends[parent, node]
        found[receiver] = sender
    return found


def _circle(nodes: frozenset[int], parents: Mapping[int, int]) -> frozenset[int]:
    """Nodes that are their own ancestors, of one circle; empty if there is none."""
    free = {ROOT}
    for start in sorted(nodes):
        path: list[int] = []
        node = start
        while node not in free and node not in path:
            path.append(node)
            node = parents[node]
        if node in path:
            return frozenset(path[path.index(node) :])
        free.update(path)
    return frozenset()
