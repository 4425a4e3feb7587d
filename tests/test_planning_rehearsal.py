"""Reductions played through, against times calculated by hand."""

from __future__ import annotations

import itertools
import random

import pytest
from flow_bound import random_graph
from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Graph, Link
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.planning.reduce import finer_and_finer, plan_reduce
from lightning_chaos.planning.rehearsal import one_bucket_byte_s
from lightning_chaos.planning.values import ReducePlan, Tree


def of_mbit(rates: dict[str, float]) -> Graph:
    """Members of one letter; ``{"ab": 8.0}`` is one way, from a to b."""
    names = tuple(sorted(set("".join(rates))))
    return Graph(names, {(pair[0], pair[1]): Link(rate, 0.0) for pair, rate in rates.items()})


def mbit(plan: ReducePlan, graph: Graph) -> float:
    """Rate at which a vector in one bucket is reduced."""
    return 1 / one_bucket_byte_s(plan, graph) / BYTES_PER_S_PER_MBIT


def over(*trees: Tree) -> ReducePlan:
    """A plan of three members with an equal piece for each tree."""
    return ReducePlan(3, trees[0], 0, trees, (1,) * len(trees))


BOTH = {"ab": 12.0, "ba": 12.0, "bc": 12.0, "cb": 12.0}
TOWARDS_A, TOWARDS_B = Tree(0, (0, 0, 1)), Tree(1, (1, 1, 1))


def test_one_piece_goes_up_and_then_comes_down() -> None:
    assert mbit(over(TOWARDS_B), of_mbit(BOTH)) == pytest.approx(12 / 2)
    assert mbit(over(TOWARDS_A), of_mbit(BOTH)) == pytest.approx(12 / 4)


def test_a_way_back_of_another_rate_takes_its_own_time() -> None:
    assert mbit(over(TOWARDS_B), of_mbit({**BOTH, "ba": 6.0})) == pytest.approx(12 / 3)


def test_of_two_pieces_one_goes_up_while_the_other_comes_down() -> None:
    assert mbit(over(TOWARDS_B, TOWARDS_B), of_mbit(BOTH)) == pytest.approx(12 / 1.5)
    # c-b up, then b-a beside c-b's second piece, then down again as much: five halves
    assert mbit(over(TOWARDS_A, TOWARDS_A), of_mbit(BOTH)) == pytest.approx(12 / 2.5)


def test_who_sends_a_sum_on_waits_for_the_last_one_to_come() -> None:
    slow_child = of_mbit({**BOTH, "cb": 3.0, "bc": 3.0})
    assert mbit(over(TOWARDS_A), slow_child) == pytest.approx(12 / (4 + 1 + 1 + 4))


@pytest.mark.parametrize("members", [1, 2, 5])
def test_the_mesh_takes_half_the_vector_per_pair_and_way(members: int) -> None:
    names = tuple(f"n{i}" for i in range(members))
    links = dict.fromkeys(itertools.permutations(names, 2), Link(100.0, 1.0))
    byte_s = one_bucket_byte_s(mesh_plan(names), Graph(names, links))
    assert byte_s * 100 * BYTES_PER_S_PER_MBIT == pytest.approx(0 if members == 1 else 2 / members)


@given(st.integers(0, 1 << 32), st.integers(2, 8))
def test_nothing_is_quicker_than_its_slowest_link(seed: int, members: int) -> None:
    graph = random_graph(random.Random(seed), members)
    graph = Graph(graph.members, graph.links)  # cards do not count in a rehearsal
    slowest_s = 1 / plan_reduce(graph).bytes_per_s
    for made in itertools.islice(finer_and_finer(graph), 3):
        assert one_bucket_byte_s(made.plan, graph) >= slowest_s * (1 - 1e-9)
