"""The plan in force, held against the best one on links as they are now."""

from __future__ import annotations

import random

import pytest

from lightning_chaos.errors import PlanError
from lightning_chaos.planning.graph import Graph, Link
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.planning.reconsider import reconsider
from lightning_chaos.planning.reduce import plan_reduce, predict

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


def test_what_only_many_pieces_would_gain_one_bucket_does_not() -> None:
    """All links of d slow: its part goes up over three of them, and then comes down."""
    links = graph({"a": 200.0, "b": 200.0, "c": 200.0, "d": 20.0})
    found = reconsider(mesh_plan(NAMES), links, VECTOR)
    assert plan_reduce(links).seconds(VECTOR) == pytest.approx(VECTOR / 7.5e6, rel=0.05)
    assert found.seconds == pytest.approx(1.5 * VECTOR / 7.5e6, rel=0.05)
    assert found.present_s == pytest.approx(found.seconds, rel=0.05)


def test_a_plan_over_a_link_that_is_not_there_promises_nothing() -> None:
    links = dict(alike(200.0).links)
    del links["a", "b"]
    with pytest.raises(PlanError, match="a - b, which is not there"):
        predict(mesh_plan(NAMES), Graph(NAMES, links))
