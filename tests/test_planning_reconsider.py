"""The plan in force, held against the best one on links as they are now."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from lightning_chaos.errors import PlanError
from lightning_chaos.planning.graph import Graph, Link
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.planning.reconsider import reconsider
from lightning_chaos.planning.reduce import finer_and_finer, plan_reduce, predict
from lightning_chaos.planning.values import ReducePlan

NAMES = tuple("abcd")
VECTOR = 10_000_000


def graph(rate_mbit: dict[str, float]) -> Graph:
    """All links; each as fast as the slower of its ends."""
    pairs = ((a, b) for a in NAMES for b in NAMES if a != b)
    return Graph(NAMES, {(a, b): Link(min(rate_mbit[a], rate_mbit[b]), 1.0) for a, b in pairs})


def alike(rate_mbit: float) -> Graph:
    return graph(dict.fromkeys(NAMES, rate_mbit))


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_promises_on_its_own_links_what_its_maker_says(seed: int) -> None:
    rng = random.Random(seed)
    links = graph({name: rng.choice([20.0, 50.0, 200.0, 1000.0]) for name in NAMES})
    made = plan_reduce(links)
    found = predict(made.plan, links)
    assert found.seconds(VECTOR) == pytest.approx(made.seconds(VECTOR))
    assert found.quick_s == pytest.approx(made.quick_s)


def test_the_mesh_is_as_good_as_the_best_where_links_are_alike() -> None:
    found = reconsider(mesh_plan(NAMES), alike(200.0), VECTOR)
    assert found.seconds == pytest.approx(found.present_s)


def test_the_mesh_waits_for_its_slowest_link() -> None:
    """Each of four members adds up a quarter: each link carries two, a half of the vector."""
    links = dict(alike(200.0).links)
    links["c", "d"] = links["d", "c"] = Link(20.0, 1.0)
    found = reconsider(mesh_plan(NAMES), Graph(NAMES, links), VECTOR)
    assert found.present_s == pytest.approx(VECTOR / 2 / 2.5e6, rel=0.01)
    # Five links of 25 MB/s and one of 2.5; a tree has three links.
    best_s = VECTOR / (127.5e6 / 3)
    assert best_s < found.seconds < 2 * best_s


@pytest.mark.parametrize(("slow_mbit", "gain"), [(100.0, 1.25), (50.0, 1.35), (20.0, 1.4)])
def test_a_member_whose_links_are_all_slow_has_them_work_both_ways_at_once(
    slow_mbit: float, gain: float
) -> None:
    """It must send the vector once, over three links; in the mesh each of them carries a half."""
    links = graph({"a": 200.0, "b": 200.0, "c": 200.0, "d": slow_mbit})
    found = reconsider(mesh_plan(NAMES), links, VECTOR)
    assert found.present_s == pytest.approx(VECTOR / (slow_mbit * 125e3) / 2, rel=0.02)
    assert gain <= found.present_s / found.seconds <= 1.5
    up: Counter[tuple[str, str]] = Counter()
    for tree, share in zip(found.plan.trees, found.plan.shares, strict=True):
        for rank, parent in tree.links(len(NAMES)):
            up[NAMES[rank], NAMES[parent]] += share
    assert all(up["d", other] and up[other, "d"] for other in "abc")


def test_pieces_stay_coarse_where_finer_ones_cost_more_messages_than_they_gain() -> None:
    links = graph({"a": 200.0, "b": 200.0, "c": 200.0, "d": 20.0})
    trees = [
        len(reconsider(mesh_plan(NAMES), links, length).plan.trees) for length in (10_000, VECTOR)
    ]
    assert trees[0] < trees[1]


def test_finer_pieces_carry_the_same_shares_of_the_same_trees() -> None:
    links = graph({"a": 200.0, "b": 100.0, "c": 200.0, "d": 20.0})

    def shares(plan: ReducePlan) -> Counter[frozenset[frozenset[int]]]:
        found: Counter[frozenset[frozenset[int]]] = Counter()
        for tree, share in zip(plan.trees, plan.shares, strict=True):
            found[frozenset(map(frozenset, tree.links(4)))] += share
        return found

    coarse, *finer = (shares(made.plan) for made in itertools.islice(finer_and_finer(links), 4))
    for fine in finer:
        for tree, share in coarse.items():
            assert fine[tree] / fine.total() == pytest.approx(share / coarse.total())


def test_a_plan_over_a_link_that_is_not_there_promises_nothing() -> None:
    links = dict(alike(200.0).links)
    del links["a", "b"]
    with pytest.raises(PlanError, match="a - b, which is not there"):
        predict(mesh_plan(NAMES), Graph(NAMES, links))
