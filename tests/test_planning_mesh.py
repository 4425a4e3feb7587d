"""Reduce plans from which links there are, and what a member finds wrong with a plan."""

from __future__ import annotations

import re
from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.errors import PlanError
from lightning_chaos.planning.mesh import mesh_plan, reroute
from lightning_chaos.planning.values import ReducePlan, Tree

ABCD = ("a", "b", "c", "d")


def names(count: int) -> tuple[str, ...]:
    return tuple(f"n{i}" for i in range(count))


@st.composite
def joined(draw: st.DrawFn) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Members, and missing links that leave them joined."""
    members = draw(st.integers(2, 9).map(names))
    kept = {(draw(st.integers(0, i - 1)), i) for i in range(1, len(members))}
    others = [pair for pair in combinations(range(len(members)), 2) if pair not in kept]
    missing = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
    return members, [(members[a], members[b]) for a, b in missing]


def test_a_full_mesh_gets_equal_shares_straight_to_each_member() -> None:
    plan = mesh_plan(ABCD)
    assert plan == ReducePlan(4, Tree(0), 0, (Tree(0), Tree(1), Tree(2), Tree(3)), (1, 1, 1, 1))
    assert [plan.trees[2].parent(rank) for rank in range(4)] == [2, 2, None, 2]
    assert [plan.trees[2].children(rank, 4) for rank in range(4)] == [(), (), (0, 1, 3), ()]


def test_one_member_alone_is_its_own_root() -> None:
    assert mesh_plan(("a",)) == ReducePlan(1, Tree(0), 0, (Tree(0),), (1,))


def test_a_missing_link_is_relayed_by_different_members_in_different_trees() -> None:
    plan = mesh_plan(ABCD, [("b", "a")])
    assert plan.trees == (Tree(0, (0, 2, 0, 0)), Tree(1, (3, 1, 1, 1)), Tree(2), Tree(3))
    assert plan.shares == (1260, 1260, 2520, 2520)
    assert plan.quick == Tree(2)
    assert [plan.trees[0].children(rank, 4) for rank in range(4)] == [(2, 3), (), (1,), ()]


def test_a_chain_is_its_only_tree() -> None:
    chain = [(0, 1), (1, 2), (2, 3)]
    plan = mesh_plan(ABCD, [("a", "c"), ("a", "d"), ("b", "d")])
    for tree in plan.trees:
        assert {frozenset(link) for link in tree.links(4)} == {frozenset(x) for x in chain}
    assert plan.quick == Tree(1, (1, 1, 1, 2))


@given(joined())
def test_any_joined_members_get_a_plan_without_fault(
    case: tuple[tuple[str, ...], list[tuple[str, str]]],
) -> None:
    members, missing = case
    plan = mesh_plan(members, missing)
    assert plan.check(members, missing) is None
    assert len(plan.trees) == len(members)
    again = mesh_plan(members, {frozenset(pair) for pair in reversed(missing)})
    assert again == plan
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=ReducePlan) == plan


@given(joined())
def test_no_tree_is_higher_than_its_root_is_far_from_others(
    case: tuple[tuple[str, ...], list[tuple[str, str]]],
) -> None:
    members, missing = case
    dead = {frozenset(map(members.index, pair)) for pair in missing}
    for tree in mesh_plan(members, missing).trees:
        reached, far = {tree.root}, 0
        while len(reached) < len(members):
            others = set(range(len(members))) - reached
            reached |= {b for b in others if any({a, b} not in dead for a in reached)}
            far += 1
        assert tree.height(tree.root, len(members)) == far


@given(joined())
def test_losing_links_changes_only_the_trees_that_used_them(
    case: tuple[tuple[str, ...], list[tuple[str, str]]],
) -> None:
    members, missing = case
    for known in range(len(missing)):
        before = mesh_plan(members, missing[:known])
        after = reroute(before, members, missing)
        assert after.check(members, missing) is None
        assert after.shares == before.shares
        lost = {frozenset(map(members.index, pair)) for pair in missing[known:]}
        for old, new in zip(before.trees, after.trees, strict=True):
            assert old.root == new.root
            used = {frozenset(link) for link in old.links(len(members))}
            assert (new is old) == used.isdisjoint(lost)


def test_what_hung_on_a_lost_link_moves_as_a_whole() -> None:
    chain = Tree(0, (0, 0, 1, 2, 3))
    plan = ReducePlan(5, chain, 0, (chain,), (1,))
    after = reroute(plan, names(5), [("n1", "n2"), ("n0", "n2"), ("n0", "n3"), ("n1", "n3")])
    assert after.trees == (Tree(0, (0, 0, 3, 4, 0)),)


def test_strangers_among_the_missing_do_not_matter() -> None:
    assert mesh_plan(ABCD, [("a", "x"), ("y", "z")]) == mesh_plan(ABCD)


@pytest.mark.parametrize("known", [[], [("a", "c"), ("b", "c")]])
def test_members_cut_off_are_named(known: list[tuple[str, str]]) -> None:
    missing = [("a", "c"), ("b", "c"), ("a", "d"), ("b", "d")]
    with pytest.raises(PlanError, match=r"no links join a, b and c, d: bring one back"):
        reroute(mesh_plan(ABCD, known), ABCD, missing)


@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        (mesh_plan(("a", "b")), "plan is for 2 members, here are 3"),
        (ReducePlan(3, Tree(0), 0, (), ()), "plan has 0 trees and 0 shares"),
        (ReducePlan(3, Tree(0), 0, (Tree(0),), (1, 1)), "plan has 1 trees and 2 shares"),
        (ReducePlan(3, Tree(0), 0, (Tree(0), Tree(1)), (1, 0)), "shares .* must be positive"),
        (ReducePlan(3, Tree(0), -1, (Tree(0),), (1,)), "small_bytes not negative"),
        (ReducePlan(3, Tree(3), 0, (Tree(0),), (1,)), "tree quick .* rank 3 of 3"),
        (ReducePlan(3, Tree(0), 0, (Tree(-1),), (1,)), "tree 0 .* rank -1 of 3"),
        (ReducePlan(3, Tree(0), 0, (Tree(0, (0, 0)),), (1,)), "parents of 2, members are 3"),
        (ReducePlan(3, Tree(0), 0, (Tree(0, (1, 1, 0)),), (1,)), "rank 0, has a parent"),
        (ReducePlan(3, Tree(0), 0, (Tree(0, (0, 2, 1)),), (1,)), "rank 1 is not served"),
        (ReducePlan(3, Tree(0), 0, (Tree(0, (0, 1, 0)),), (1,)), "rank 1 is not served"),
        (ReducePlan(3, Tree(0), 0, (Tree(0, (0, 7, 0)),), (1,)), "rank 1 has the parent 7"),
        (ReducePlan.direct((1, 1, 0)), "tree 1 of the plan uses the link between b and c"),
        (ReducePlan(3, Tree(0), 0, (Tree(0, (0, 2, 0)),), (1,)), "tree 0 .* between b and c"),
    ],
)
def test_a_member_says_what_is_wrong_with_a_plan(plan: ReducePlan, fault: str) -> None:
    problem = plan.check(("a", "b", "c"), [("c", "b")])
    assert problem is not None
    assert re.search(fault, problem)
