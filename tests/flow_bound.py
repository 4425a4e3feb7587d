"""What no trees can beat, by linear programming: the oracle of reduce plans and of multicasts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import combinations, product

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import lil_array, vstack

from lightning_chaos.planning.graph import Cap, Graph, Link


def random_graph(rng: random.Random, members: int) -> Graph:
    """Joined members; links and caps are all, some or none, equal or of all sizes."""
    names = tuple(f"n{i}" for i in range(members))
    density, equal, capped = rng.uniform(0.2, 1.2), rng.random() < 0.25, rng.choice((0, 0, 0.5, 1))
    order = rng.sample(names, members)
    tree = {frozenset((order[rng.randrange(i)], order[i])) for i in range(1, members)}
    links = {}
    for a, b in combinations(names, 2):
        if frozenset((a, b)) in tree or rng.random() < density:
            rate = 300.0 if equal else rng.uniform(50, 1000)
            links[a, b] = links[b, a] = Link(rate, rng.uniform(0.1, 50))
    caps = {
        name: Cap(rng.uniform(100, 1500), rng.uniform(100, 1500))
        for name in names
        if rng.random() < capped
    }
    return Graph(names, links, caps)


def random_multicast(rng: random.Random, donors: int, newcomers: int) -> Graph:
    """o0, o1 … and n0, n1 …; links from o0 to every newcomer, others and caps all, some or none."""
    old = [f"o{i}" for i in range(donors)]
    new = [f"n{i}" for i in range(newcomers)]
    density, capped = rng.choice((0.3, 0.7, 1.0)), rng.choice((0, 0.5, 1))
    links = {
        (a, b): Link(rng.choice((10.0, 100.0, rng.uniform(20, 1000))), 1.0)
        for a, b in product([*old, *new], new)
        if a != b and (a == "o0" or rng.random() < density)
    }
    caps = {
        name: Cap(rng.uniform(50, 1500), rng.uniform(50, 1500))
        for name in (*old, *new)
        if rng.random() < capped
    }
    return Graph((*old, *new), links, caps)


def two_way(graph: Graph) -> dict[tuple[int, int], float]:
    """Mbit/s of the slower way of every link that is there both ways."""
    ranks = {name: rank for rank, name in enumerate(graph.members)}
    return {
        (ranks[a], ranks[b]): min(link.rate_mbit, graph.links[b, a].rate_mbit)
        for (a, b), link in sorted(graph.links.items())
        if ranks[a] < ranks[b] and (b, a) in graph.links
    }


def card(graph: Graph, rank: int) -> float:
    """Mbit/s of the slower direction of a member's network card."""
    cap = graph.cap(graph.members[rank])
    return min(cap.up_mbit, cap.down_mbit)


def flow_optimum(graph: Graph) -> float:
    """Mbit/s of the best mix of all trees, without a list of them.

    The weights of links that some mix of spanning trees gives are those into which a unit can
    flow from one member to each other one, within arc weights that sum to ``n - 1`` (Martin 1991,
    "Using separation algorithms to generate mixed integer model reformulations").  Wanted: such
    weights with the slowest link or card done earliest.
    """
    count, rates = len(graph.members), two_way(graph)
    edges = list(rates)
    arcs = [*edges, *((b, a) for a, b in edges)]
    width = len(arcs)
    last = width * count  # weights of arcs, a flow to every member but the first, the time
    cards = [rank for rank in range(count) if card(graph, rank) < np.inf]
    scale = max(rates.values())

    upper = lil_array((width * (count - 1) + len(edges) + len(cards), last + 1))
    equal = lil_array(((count - 1) ** 2 + 1, last + 1))
    wanted = np.zeros((count - 1) ** 2 + 1)
    for k in range(1, count):
        for i, (a, b) in enumerate(arcs):
            row, flow = width * (k - 1) + i, width * k + i
            upper[row, flow], upper[row, i] = 1, -1
            for end, sign in ((b, 1), (a, -1)):
                if end:
                    equal[(k - 1) * (count - 1) + end - 1, flow] = sign
        wanted[(k - 1) * (count - 1) + k - 1] = 1
    equal[-1, list(range(width))] = 1
    wanted[-1] = count - 1
    row = width * (count - 1)
    for i, edge in enumerate(edges):
        upper[row, [i, i + len(edges)]] = 1
        upper[row, last] = -rates[edge] / scale
        row += 1
    for rank in cards:
        upper[row, [i for i, arc in enumerate(arcs) if rank in arc]] = 1
        upper[row, last] = -card(graph, rank) / scale
        row += 1
    cost = np.zeros(last + 1)
    cost[last] = 1
    found = linprog(cost, upper.tocsr(), np.zeros(row), equal.tocsr(), wanted, method="highs")
    assert found.status == 0, found.message
    return scale / float(found.fun)


def multicast_optimum(graph: Graph, newcomers: Sequence[str]) -> float:
    """Mbit/s at which all newcomers can be sent the same, without a list of trees.

    Wanted: rates of links such that as much as that can flow to each newcomer from the others, who
    all have it, at those rates; the flows to different newcomers do not add up (the network coding
    bound, which trees reach where everybody wants everything: Edmonds 1973, "Edge-disjoint
    branchings").
    """
    links = [link for link in graph.links if link[1] in newcomers]
    width, last = len(links), len(links) * (1 + len(newcomers))  # rates, a flow to each, the sum
    flows = lil_array((width * len(newcomers), last + 1))
    kept = lil_array((len(newcomers) ** 2, last + 1))
    for k in range(len(newcomers)):
        for i, (sender, receiver) in enumerate(links):
            flow = width * (k + 1) + i
            flows[width * k + i, [flow, i]] = 1, -1
            for end, sign in ((receiver, 1), (sender, -1)):
                if end in newcomers:
                    kept[k * len(newcomers) + newcomers.index(end), flow] = sign
        kept[k * len(newcomers) + k, last] = -1
    ends = [(name, end) for name in graph.members for end in (0, 1)]
    cards, most = lil_array((len(ends), last + 1)), np.zeros(len(ends))
    for row, (name, end) in enumerate(ends):
        cap_mbit = (graph.cap(name).up_mbit, graph.cap(name).down_mbit)[end]
        if cap_mbit < np.inf:
            most[row] = cap_mbit
            cards[row, [i for i, link in enumerate(links) if link[end] == name]] = 1
    cost = np.zeros(last + 1)
    cost[last] = -1
    bounds = [(0, graph.links[link].rate_mbit) for link in links]
    found = linprog(
        cost,
        vstack([flows, cards]).tocsr(),
        np.concatenate([np.zeros(width * len(newcomers)), most]),
        kept.tocsr(),
        np.zeros(len(newcomers) ** 2),
        bounds=[*bounds, *[(0, None)] * (last + 1 - width)],
        method="highs",
    )
    assert found.status == 0, found.message
    return -float(found.fun)


def brute_force(graph: Graph) -> float:
    """The same from the list of all trees; for few members."""
    count, rates = len(graph.members), two_way(graph)
    trees = [t for t in combinations(rates, count - 1) if joins(t, count)]
    rows, capacities = [], []
    for edge, rate in rates.items():
        rows.append([float(edge in tree) for tree in trees])
        capacities.append(rate)
    for rank in range(count):
        if card(graph, rank) < np.inf:
            rows.append([float(sum(rank in edge for edge in tree)) for tree in trees])
            capacities.append(card(graph, rank))
    found = linprog(-np.ones(len(trees)), np.array(rows), capacities, method="highs")
    assert found.status == 0, found.message
    return -float(found.fun)


def joins(edges: Iterable[tuple[int, int]], count: int) -> bool:
    """These links join all of so many members."""
    group = list(range(count))
    for a, b in edges:
        old, new = group[a], group[b]
        group = [new if g == old else g for g in group]
    return len(set(group)) == 1
