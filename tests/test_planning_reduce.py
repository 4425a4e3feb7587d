"""Reduce plans for links as measured, against what no trees can beat."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import msgspec
import numpy as np
import pytest
from flow_bound import brute_force, flow_optimum, joins, random_graph, two_way
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from lightning_chaos.collective.layout import Layout
from lightning_chaos.errors import PlanError
from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Cap, Graph, Link
from lightning_chaos.planning.mesh import reroute
from lightning_chaos.planning.reduce import Reduction, finer_and_finer, plan_reduce
from lightning_chaos.planning.shares import best_shares
from lightning_chaos.planning.values import ReducePlan, Tree

MIB = 1 << 20
PLAIN = Link(100, 1)

graphs = st.builds(
    lambda seed, members: random_graph(random.Random(seed), members),
    st.integers(0, 1 << 32),
    st.integers(2, 9),
)


def cluster(links: dict[str, Link], caps: dict[str, Cap] | None = None) -> Graph:
    """Members of one letter; ``{"ab": link}`` is there both ways."""
    members = tuple(sorted(set("".join(links))))
    both = {(a, b): link for pair, link in links.items() for a, b in (pair, reversed(pair))}
    return Graph(members, both, caps or {})


def mbit(reduction: Reduction) -> float:
    return reduction.bytes_per_s / BYTES_PER_S_PER_MBIT


def missing(graph: Graph) -> list[tuple[str, str]]:
    return [
        (a, b) for a in graph.members for b in graph.members if a < b and (a, b) not in graph.links
    ]


def mesh(members: int, link: Link = PLAIN) -> Graph:
    names = tuple(f"n{i}" for i in range(members))
    return Graph(names, {(a, b): link for a in names for b in names if a != b})


# ---- what comes out --------------------------------------------------------------------------


@pytest.mark.parametrize("members", [1, 2, 3, 5, 8])
def test_a_full_mesh_of_equal_links_is_direct(members: int) -> None:
    reduction = plan_reduce(mesh(members))
    direct = ReducePlan.direct((1,) * members)
    assert msgspec.structs.replace(reduction.plan, small_bytes=0) == direct


def test_the_direct_plan_is_as_fast_as_any() -> None:
    reduction = plan_reduce(mesh(6))
    assert mbit(reduction) == pytest.approx(6 / 2 * 100)
    assert reduction.bound_bytes_per_s == pytest.approx(reduction.bytes_per_s)


def test_nobody_relays_through_the_slow_card() -> None:
    graph = mesh(5, Link(1000, 1))
    graph = Graph(graph.members, graph.links, {"n3": Cap(100, 80)})
    reduction = plan_reduce(graph)
    loads = [share * len(tree.children(3, 5)) for tree, share in pieces(reduction.plan)]
    assert sum(loads) <= 0.05 * sum(reduction.plan.shares)
    assert mbit(reduction) == pytest.approx(80, rel=0.05)


@pytest.mark.parametrize("members", [2, 3, 4])
def test_cards_that_are_far_slower_than_the_links_are_what_counts(members: int) -> None:
    graph = mesh(members, Link(100_000, 1))
    slow = msgspec.structs.replace(graph, caps={name: Cap(1, 1) for name in graph.members})
    assert mbit(plan_reduce(slow)) == pytest.approx(members / (2 * (members - 1)), rel=0.01)


def test_a_slow_link_is_spared_and_a_missing_one_not_used() -> None:
    fast = Link(1000, 1)
    graph = cluster({"ab": Link(10, 1), "ac": fast, "ad": fast, "bc": fast, "bd": fast})
    reduction = plan_reduce(graph)
    assert reduction.plan.check(graph.members, [("c", "d")]) is None
    assert mbit(reduction) == pytest.approx(4010 / 3, rel=0.05)


def test_four_in_a_ring_use_all_of_every_link() -> None:
    """Each of the four trees leaves out one link; the first ones at hand get only 0.96 of it."""
    rates = {"ac": 404.0, "ad": 835.0, "bc": 600.0, "bd": 870.0}
    reduction = plan_reduce(cluster({pair: Link(rate, 1) for pair, rate in rates.items()}))
    assert mbit(reduction) == pytest.approx(sum(rates.values()) / 3, rel=1e-3)


def test_short_vectors_take_the_star_of_the_member_in_the_middle() -> None:
    near, far = Link(100, 10), Link(100, 80)
    pairs = {a + b: far for a in "abce" for b in "abce" if a < b}
    reduction = plan_reduce(cluster({**pairs, "ad": near, "bd": near, "cd": near, "de": near}))
    assert reduction.plan.quick == Tree(3)
    assert reduction.quick_s == pytest.approx(0.020, abs=0.002)
    assert reduction.latency_s == pytest.approx(0.160, abs=0.010)
    star_s = reduction.quick_s + reduction.plan.small_bytes * 2 / (100 * BYTES_PER_S_PER_MBIT)
    assert reduction.plan.small_bytes > MIB
    assert star_s > 0.9 * reduction.seconds(reduction.plan.small_bytes)


def test_a_long_chain_is_cut_fine_so_that_all_its_links_work_at_once() -> None:
    reduction = plan_reduce(cluster({"ab": PLAIN, "bc": PLAIN, "cd": PLAIN}))
    assert {tree.root for tree in reduction.plan.trees} == {1, 2}
    assert reduction.plan.shares == (1, 1, 1, 1)
    assert mbit(reduction) == pytest.approx(100)


@pytest.mark.parametrize("slower", [("a", "b"), ("b", "a")])
def test_a_link_counts_as_its_slower_way_and_not_at_all_if_it_goes_one_way(
    slower: tuple[str, str],
) -> None:
    graph = cluster({"ab": PLAIN, "bc": PLAIN})
    links = {**graph.links, slower: Link(40, 3), ("a", "c"): Link(500, 1)}
    reduction = plan_reduce(Graph(graph.members, links))
    assert mbit(reduction) == pytest.approx(40)
    assert reduction.plan.check(graph.members, [("a", "c")]) is None


def test_seconds_are_the_latency_and_the_slowest_links_time() -> None:
    reduction = plan_reduce(mesh(2, Link(80, 0)))
    assert reduction.seconds(10 * MIB) == pytest.approx(reduction.latency_s + 10 * MIB / 10e6)
    assert reduction.bound_s(10 * MIB) == pytest.approx(10 * MIB / 10e6)
    alone = plan_reduce(mesh(1))
    assert (alone.seconds(MIB), alone.bound_s(MIB)) == (0, 0)


# ---- for any graph ---------------------------------------------------------------------------


def pieces(plan: ReducePlan) -> list[tuple[Tree, int]]:
    return list(zip(plan.trees, plan.shares, strict=True))


@given(graphs, st.integers(0, 3))
def test_any_plan_is_without_fault_and_keeps_its_promise(graph: Graph, finer: int) -> None:
    reduction = next(itertools.islice(finer_and_finer(graph), finer, None))
    plan = reduction.plan
    assert plan.check(graph.members, missing(graph)) is None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=ReducePlan) == plan
    count, total = len(graph.members), sum(plan.shares)
    sent = {}
    for tree, share in pieces(plan):
        for rank, parent in tree.links(count):
            for way in ((rank, parent), (parent, rank)):
                sent[way] = sent.get(way, 0) + share / total
    name = graph.members.__getitem__
    slowest = max(x / graph.links[name(a), name(b)].rate_mbit for (a, b), x in sent.items())
    for rank, member in enumerate(graph.members):
        cap = graph.cap(member)
        up, down = (sum(x for way, x in sent.items() if way[i] == rank) for i in (0, 1))
        slowest = max(slowest, up / cap.up_mbit, down / cap.down_mbit)
    assert 1 / slowest >= mbit(reduction) * (1 - 1e-9)
    assert reduction.bound_bytes_per_s >= reduction.bytes_per_s * (1 - 1e-9)


@given(graphs, st.integers(0, 3), st.lists(st.integers(0, 1 << 22), max_size=3))
def test_any_plan_cuts_a_vector_so_that_each_float_is_in_one_chunk_of_one_tree(
    graph: Graph, finer: int, floats: list[int]
) -> None:
    plan = next(itertools.islice(finer_and_finer(graph), finer, None)).plan
    ends = list(itertools.accumulate((4 * number for number in floats), initial=0))
    layout = Layout.of(graph.members, plan, [(a, b - a) for a, b in itertools.pairwise(ends)])
    at = 0
    for chunk in layout.chunks[1:]:  # the first one is the header
        assert chunk.offset == at
        assert chunk.tree in (plan.quick, *plan.trees)
        at += chunk.length
    assert at == ends[-1]


@given(graphs, st.randoms(use_true_random=False))
def test_the_order_in_which_links_are_told_does_not_matter(
    graph: Graph, rng: random.Random
) -> None:
    links = rng.sample(list(graph.links.items()), len(graph.links))
    caps = rng.sample(list(graph.caps.items()), len(graph.caps))
    assert plan_reduce(Graph(graph.members, dict(links), dict(caps))) == plan_reduce(graph)


@given(graphs, st.integers(0))
def test_a_lost_link_moves_only_the_trees_that_used_it(graph: Graph, which: int) -> None:
    plan = plan_reduce(graph).plan
    lost = sorted(graph.links)[which % len(graph.links)]
    dead = [*missing(graph), lost]
    pair = {graph.members.index(name) for name in lost}
    if not joins((link for link in two_way(graph) if set(link) != pair), len(graph.members)):
        with pytest.raises(PlanError, match="no links join"):
            reroute(plan, graph.members, dead)
        return
    after = reroute(plan, graph.members, dead)
    assert after.check(graph.members, dead) is None
    assert after.shares == plan.shares
    for old, new in zip(plan.trees, after.trees, strict=True):
        assert old.root == new.root
        used = pair in [set(link) for link in old.links(plan.members)]
        assert (new is old) is not used


def test_plans_are_near_what_no_trees_can_beat() -> None:
    """A seeded sample of what ``benchmarks/planning_reduce.py`` measures on many more."""
    rng = random.Random(20260)
    ratios = []
    for _ in range(100):
        graph = random_graph(rng, rng.randint(3, 12))
        reduction, best = plan_reduce(graph), flow_optimum(graph)
        assert mbit(reduction) <= best * (1 + 1e-6)
        assert reduction.bound_bytes_per_s >= best * BYTES_PER_S_PER_MBIT * (1 - 1e-6)
        ratios.append((best / mbit(reduction), graph))
    assert statistics.median(ratio for ratio, _ in ratios) <= 1.05
    worst, graph = max(ratios, key=lambda pair: pair[0])
    assert worst <= 1.15, graph


def test_plans_for_few_members_are_the_best_of_all_mixes_of_all_trees_or_direct_and_near() -> None:
    rng = random.Random(20261)
    for _ in range(100):
        graph = random_graph(rng, rng.randint(2, 4))
        best = brute_force(graph)
        assert best == pytest.approx(flow_optimum(graph))
        assert best / mbit(plan_reduce(graph)) <= 1.021, graph


def test_shares_of_given_trees_are_the_best_there_are() -> None:
    rng = np.random.default_rng(20262)
    for _ in range(100):
        trees, rows = rng.integers(1, 9, size=2)
        matrix = rng.integers(0, 3, size=(rows, trees)) + (rng.random((rows, 1)) < 0.2)
        matrix[rng.integers(rows), :] += 1  # each tree takes something
        capacities = rng.choice([1.0, 2.0, 7.5], size=rows)
        uses = [{row: float(x) for row, x in enumerate(column) if x} for column in matrix.T]
        shares = best_shares(uses, list(capacities))
        found = linprog(-np.ones(trees), matrix, capacities, method="highs")
        assert sum(shares.rates) == pytest.approx(-found.fun)
        assert np.dot(shares.prices, capacities) == pytest.approx(-found.fun)
        assert np.all(matrix @ shares.rates <= capacities + 1e-9)


def test_large_clusters_are_planned_without_linear_programming() -> None:
    graph = random_graph(random.Random(3), 28)
    reduction = plan_reduce(graph)
    assert reduction.plan.check(graph.members, missing(graph)) is None
    assert 0 < reduction.bytes_per_s <= reduction.bound_bytes_per_s < math.inf


# ---- what cannot be planned ------------------------------------------------------------------


def test_members_cut_off_are_named() -> None:
    graph = cluster({"ab": Link(1, 1), "cd": Link(1, 1)})
    one_way = Graph(graph.members, {**graph.links, ("a", "c"): Link(1, 1)})
    for broken in (graph, one_way):
        with pytest.raises(PlanError, match="no links join a, b and c, d"):
            plan_reduce(broken)


def test_nobody_is_refused() -> None:
    with pytest.raises(PlanError, match="nobody to plan for"):
        plan_reduce(Graph((), {}))
