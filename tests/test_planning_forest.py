"""From whom members take what others hold, over the links that are there."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.planning.forest import forest

ABCDE = tuple("abcde")
LINE = [("a", "c"), ("a", "d"), ("a", "e"), ("b", "d"), ("b", "e"), ("c", "e")]


def test_with_every_link_all_take_it_from_the_oldest_source() -> None:
    assert forest(ABCDE, [], "db", "ace") == dict.fromkeys("ace", "b")


def test_along_a_chain_it_passes_from_one_to_the_next() -> None:
    assert forest(ABCDE, LINE, "b", ABCDE) == {"a": "b", "c": "b", "d": "c", "e": "d"}


def test_each_takes_it_from_the_nearest_source() -> None:
    assert forest(ABCDE, LINE, "ae", "bcd") == {"b": "a", "c": "b", "d": "e"}


def test_nothing_passes_through_others_than_those_named() -> None:
    assert forest(ABCDE, LINE, "a", "be") == {"b": "a"}
    assert forest(ABCDE, [], "", "be") == {}


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[str, ...], set[frozenset[str]], set[str], set[str]]:
    members = tuple(f"n{i}" for i in range(draw(st.integers(1, 8))))
    pairs = [frozenset(pair) for pair in combinations(members, 2)]
    missing = draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    some = st.sets(st.sampled_from(members))
    return members, missing, draw(some), draw(some)


@given(cases())
def test_the_ways_are_the_shortest_and_use_the_links_that_there_are(
    case: tuple[tuple[str, ...], set[frozenset[str]], set[str], set[str]],
) -> None:
    members, missing, sources, through = case
    parents = forest(members, missing, sources, through)
    near = dict.fromkeys(sources, 0)
    for distance in range(1, len(members)):
        for uid in through - near.keys():
            if any(d == distance - 1 and {uid, u} not in missing for u, d in near.items()):
                near[uid] = distance
    assert parents.keys() == near.keys() - sources
    for uid, parent in parents.items():
        as_near = [u for u in members if near.get(u) == near[uid] - 1 and {uid, u} not in missing]
        assert parent == as_near[0]
