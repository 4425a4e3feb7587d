"""Who is asked for which shard, when donors are slow, lost or wrong."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.replication.assignment import Assignment, Due


def alike(_: str, n: int) -> float:
    """All donors answer once a second."""
    return n


def paced(**periods: float) -> Due:
    """They answer once in so many seconds."""
    return lambda uid, n: n * periods[uid]


def test_a_donor_sends_its_own_range_in_order() -> None:
    work = Assignment({"a": [0, 1, 2], "b": [3]})
    assert [work.next("a", alike) for _ in range(3)] == [0, 1, 2]


def test_an_idle_donor_takes_the_next_of_the_fullest() -> None:
    work = Assignment({"a": [0, 1, 2, 3], "b": [4, 5], "c": []})
    assert [work.next("c", alike), work.next("c", alike)] == [0, 1]


def test_who_would_be_earlier_is_asked_too_and_the_first_answer_counts() -> None:
    work, due = Assignment({"a": [0, 1, 2, 3], "b": []}), paced(a=2, b=1)
    assert [work.next("a", due) for _ in range(4)] == [0, 1, 2, 3]
    assert [work.next("b", due) for _ in range(3)] == [3, 2, 1]
    assert work.next("b", due) is None, "a's next is expected after 2 s, b's fourth after 4 s"
    assert work.arrived("b", 3)
    assert not work.arrived("a", 3)
    assert work.arrived("a", 0)
    assert work.under_way("b") == 2
    assert work.arrived("b", 2)
    assert work.arrived("b", 1)
    assert work.done
    assert work.under_way("a") == 2


def test_nobody_is_asked_for_what_is_expected_earlier_of_another() -> None:
    work, due = Assignment({"a": [0, 1], "b": []}), paced(a=1, b=3)
    assert [work.next("a", due), work.next("a", due)] == [0, 1]
    assert work.next("b", due) is None
    assert work.next("b", paced(a=4, b=3)) == 1, "a has come to be late"


def test_a_third_takes_what_the_second_is_late_with() -> None:
    work = Assignment({"a": [0], "b": [], "c": []})
    assert work.next("a", alike) == 0
    assert work.next("b", paced(a=9, b=5, c=1)) == 0
    assert work.next("c", paced(a=9, b=5, c=1)) == 0
    assert work.next("b", alike) is None


def test_what_was_asked_of_several_stays_with_those_that_are_left() -> None:
    work, due = Assignment({"a": [0], "b": [], "c": []}), paced(a=9, b=5, c=7)
    assert work.next("a", due) == 0
    assert work.next("b", due) == 0
    assert work.next("c", due) is None
    work.lost("b")
    assert work.next("c", due) == 0, "earlier than a"


def test_what_is_queued_can_be_planned_anew_and_what_is_under_way_stays() -> None:
    work = Assignment({"a": [0, 1, 2, 3], "b": []})
    assert work.next("a", alike) == 0
    assert work.queued == [1, 2, 3]
    work.plan_anew({"a": [3], "b": [1, 2]})
    assert [work.next("a", alike), work.next("b", alike), work.next("b", alike)] == [3, 1, 2]
    assert work.under_way("a") == 2


def test_what_a_lost_donor_had_under_way_is_asked_of_others() -> None:
    work = Assignment({"a": [0, 1, 2], "b": []})
    work.next("a", alike)
    work.lost("a")
    assert {work.next("b", alike) for _ in range(3)} == {0, 1, 2}


def test_a_wrong_shard_is_asked_again() -> None:
    work = Assignment({"a": [0], "b": []})
    assert work.next("a", alike) == 0
    work.failed("a", 0)
    assert not work.done
    assert work.next("b", alike) == 0
    assert work.arrived("b", 0)


@given(st.data())
def test_every_shard_arrives_once_whatever_happens_while_one_donor_is_left(
    data: st.DataObject,
) -> None:
    shards = data.draw(st.integers(0, 12))
    uids = ["a", "b", "c"]
    owners = [data.draw(st.sampled_from(uids)) for _ in range(shards)]
    work = Assignment({u: [i for i, owner in enumerate(owners) if owner == u] for u in uids})
    asked: dict[str, list[int]] = {u: [] for u in uids}
    taken: list[int] = []
    for _ in range(200):
        if work.done:
            break
        uid = data.draw(st.sampled_from(list(asked)))
        if (index := work.next(uid, alike)) is not None:
            assert index not in taken
            assert index not in asked[uid]
            asked[uid].append(index)
        if not asked[uid]:
            continue
        match data.draw(st.sampled_from(["arrives", "arrives", "wrong", "lost"])):
            case "arrives":
                index = asked[uid].pop(0)
                taken += [index] if work.arrived(uid, index) else []
            case "wrong":
                work.failed(uid, asked[uid].pop(0))
            case "lost" if len(asked) > 1:
                work.lost(uid)
                del asked[uid]
    while not work.done:
        uid = next(iter(asked))
        if (index := work.next(uid, alike)) is not None:
            asked[uid].append(index)
        index = asked[uid].pop(0)
        taken += [index] if work.arrived(uid, index) else []
    assert sorted(taken) == list(range(shards))
