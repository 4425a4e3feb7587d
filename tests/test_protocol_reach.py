"""Who can be reached over the links that are left: the short way and the long way agree."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.reach import partners, unreached
from lightning_chaos.protocol.timeouts import Timeouts

NODES = "abcdef"
ONE = st.sampled_from(NODES)
DENIALS = st.dictionaries(ONE, st.sets(ONE), max_size=6)


def by_walking(first: str, nodes: str, blocked: dict[str, set[str]]) -> set[str]:
    """From whoever is reached on to all who do not block that one."""
    reached, edge = {first}, [first]
    while edge:
        here = edge.pop()
        for uid in nodes:
            if uid not in reached and here not in blocked.get(uid, ()):
                reached.add(uid)
                edge.append(uid)
    return set(nodes) - reached


@given(blocked=DENIALS, first=ONE)
def test_the_same_are_reached_as_by_walking(blocked: dict[str, set[str]], first: str) -> None:
    assert unreached(first, NODES, blocked) == by_walking(first, NODES, blocked)


@given(pairs=st.sets(st.tuples(ONE, ONE).filter(lambda pair: pair[0] < pair[1])))
def test_partners_are_found_from_both_ends(pairs: set[tuple[str, str]]) -> None:
    found = partners(pairs)
    assert {(a, b) for a, others in found.items() for b in others if a < b} == pairs
    assert all(a in found[b] for a, others in found.items() for b in others)


@given(says=st.lists(st.tuples(ONE, st.sets(ONE, max_size=3)), max_size=12))
def test_what_members_say_last_counts(says: list[tuple[str, set[str]]]) -> None:
    evidence = Evidence("a", Timeouts(1.0))
    last: dict[str, set[str]] = {}
    for reporter, uids in says:
        evidence.others_say(0.0, reporter, sorted(uids))
        last[reporter] = uids
    for reporter in NODES:
        assert evidence.told(reporter, last.get(reporter, set()))
        for uid in NODES:
            assert evidence.says(reporter, uid) == (uid in last.get(reporter, set()))
    blocked = {b: {a for a, uids in last.items() if b in uids} for b in NODES}
    for a, b in evidence.confirmed(0.0, dict.fromkeys(NODES).keys()):
        blocked[a].add(b)
        blocked[b].add(a)
    side = evidence.side(0.0, dict.fromkeys(NODES).keys())
    assert set(NODES) - set(side) == by_walking("a", NODES, blocked)
