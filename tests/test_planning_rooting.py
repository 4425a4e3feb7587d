"""Where the trees of a plan are rooted."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.planning.rooting import Rooting, Unrooted


def star(count: int, centre: int = 0, slow: int | None = None) -> Unrooted:
    """All links to one member; that of ``slow`` takes all the time there is, others a tenth."""
    near: list[dict[int, float]] = [{} for _ in range(count)]
    for rank in range(count):
        if rank != centre:
            near[rank][centre] = near[centre][rank] = 1.0 if rank == slow else 0.1
    return Unrooted(near)


def drawn(seed: int, count: int) -> Unrooted:
    rng = random.Random(seed)
    near: list[dict[int, float]] = [{} for _ in range(count)]
    for rank in range(1, count):
        other = rng.randrange(rank)
        near[rank][other] = near[other][rank] = rng.uniform(0.01, 1)
    return Unrooted(near)


def test_one_piece_hangs_on_the_middle_of_its_tree() -> None:
    assert Rooting().choose(star(5, centre=3), 1.0) == 3


def test_a_slow_link_is_rooted_on_both_sides_in_turn() -> None:
    rooting, tree = Rooting(), star(4, slow=2)
    assert Counter(rooting.choose(tree, 0.25) == 2 for _ in range(4)) == {True: 2, False: 2}


@pytest.mark.parametrize("times", [1, 3])
def test_stars_of_everybody_keep_their_own_centres(times: int) -> None:
    rooting = Rooting()
    for _ in range(times):
        assert [rooting.choose(star(4, centre), 0.25) for centre in range(4)] == [0, 1, 2, 3]


@given(st.integers(0, 1 << 32), st.integers(2, 9))
def test_the_farthest_is_found_for_everybody(seed: int, count: int) -> None:
    tree = drawn(seed, count)
    for root in range(count):
        far = {root: 0.0}
        for rank, parent in tree.walk(root):
            far[rank] = far[parent] + tree.near[rank][parent]
        assert len(far) == count
        assert tree.far[root] == pytest.approx(max(far.values()))


@given(st.integers(0, 1 << 32), st.integers(2, 9))
def test_the_root_is_the_best_of_all_tried_one_by_one(seed: int, count: int) -> None:
    rooting, up = Rooting(), Counter[tuple[int, int]]()
    for turn in range(4):
        tree, share = drawn(seed + turn, count), 0.25

        def cost(root: int, tree: Unrooted = tree, share: float = share) -> float:
            added = ((share * tree.near[a][b], up[a, b]) for a, b in tree.walk(root))
            return sum(x * (2 * was + x) for x, was in added) + 2 * share * tree.far[root]

        root = rooting.choose(tree, share)
        assert cost(root) <= min(map(cost, range(count))) + 2e-3
        for a, b in tree.walk(root):
            up[a, b] += share * tree.near[a][b]
