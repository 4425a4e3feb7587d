"""Trees to several newcomers, against what no schedule can beat."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping

import pytest
from flow_bound import multicast_optimum, random_multicast
from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.planning import multicast
from lightning_chaos.planning.arborescence import ROOT, least_arborescence
from lightning_chaos.planning.graph import Graph
from lightning_chaos.planning.multicast import Mix, Network

Costs = Mapping[tuple[int, int], float]


def newcomers_of(graph: Graph) -> list[str]:
    return [name for name in graph.members if name.startswith("n")]


def mix_of(graph: Graph) -> Mix:
    """Rates are Mbit/s here."""
    new = newcomers_of(graph)
    return Network(
        new,
        {ends: link.rate_mbit for ends, link in graph.links.items()},
        {name: graph.cap(name).up_mbit for name in graph.members},
        {name: graph.cap(name).down_mbit for name in new},
    ).best_mix()


def check(mix: Mix, graph: Graph) -> None:
    """Everybody is served from a donor in the end, and nothing carries more than it can."""
    new = newcomers_of(graph)
    loads: dict[tuple[str, str], float] = {}
    for tree, rate in mix.rates.items():
        assert rate > 0
        sources = dict(zip(new, tree, strict=True))
        for name in new:
            way = [name]
            while way[-1] in sources:
                way.append(sources[way[-1]])
                assert len(way) <= len(new) + 1, tree
            loads[sources[name], name] = loads.get((sources[name], name), 0.0) + rate
    for ends, load in loads.items():
        assert load <= graph.links[ends].rate_mbit * (1 + 1e-6)
    for name in graph.members:
        sent, got = (sum(x for ends, x in loads.items() if ends[i] == name) for i in (0, 1))
        assert sent <= graph.cap(name).up_mbit * (1 + 1e-6)
        assert got <= graph.cap(name).down_mbit * (1 + 1e-6)


@given(st.integers(0, 1 << 32), st.integers(1, 5), st.integers(1, 4))
def test_the_mix_is_the_best_there_can_be_and_its_bound_proves_it(
    seed: int, donors: int, newcomers: int
) -> None:
    graph = random_multicast(random.Random(seed), donors, newcomers)
    mix, best = mix_of(graph), multicast_optimum(graph, newcomers_of(graph))
    check(mix, graph)
    assert mix.total == pytest.approx(best, rel=2e-4)
    assert best * (1 - 1e-6) <= mix.bound <= best * (1 + 2e-4)


def test_a_search_that_is_cut_short_still_brings_a_mix_and_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(multicast, "_WORK", 0)
    for seed in range(30):
        graph = random_multicast(random.Random(seed), 4, 3)
        mix, best = mix_of(graph), multicast_optimum(graph, newcomers_of(graph))
        check(mix, graph)
        assert mix.total >= 0.8 * best
        assert best * (1 - 1e-6) <= mix.bound <= 1.5 * best


def test_many_donors_and_newcomers_are_no_trouble() -> None:
    graph = random_multicast(random.Random(5), 16, 6)
    mix = mix_of(graph)
    check(mix, graph)
    assert mix.total >= 0.99 * mix.bound


def joins(parents: tuple[int, ...]) -> bool:
    """Everybody hangs on the root in the end."""
    near = {ROOT}
    for _ in parents:
        near |= {node for node, parent in enumerate(parents) if parent in near}
    return len(near) == len(parents) + 1


@st.composite
def costs(draw: st.DrawFn) -> tuple[int, dict[tuple[int, int], float]]:
    count = draw(st.integers(1, 5))
    nodes = range(count)
    inner = [pair for pair in itertools.permutations(nodes, 2) if draw(st.booleans())]
    entries = [(ROOT, node) for node in nodes if node == 0 or draw(st.booleans())]
    chain = list(itertools.pairwise(nodes))  # so that all can be reached
    return count, {link: float(draw(st.integers(0, 9))) for link in [*entries, *inner, *chain]}


@given(costs())
def test_the_cheapest_tree_is_that_of_trying_all(
    case: tuple[int, dict[tuple[int, int], float]],
) -> None:
    count, prices = case

    def price(parents: tuple[int, ...]) -> float:
        links = zip(parents, range(count), strict=True)
        return sum(prices.get(link, math.inf) for link in links)

    everything = itertools.product([ROOT, *range(count)], repeat=count)
    found = tuple(least_arborescence(count, prices))
    assert joins(found)
    assert price(found) == min(price(parents) for parents in everything if joins(parents))
