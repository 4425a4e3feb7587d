"""Who is asked for which shard, when donors are slow, lost or wrong."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.replication.assignment import Assignment


def test_a_donor_sends_its_own_range_in_order() -> None:
    work = Assignment({"a": [0, 1, 2], "b": [3]})
    assert [work.next("a") for _ in range(3)] == [0, 1, 2]


def test_an_idle_donor_takes_from_the_back_of_the_fullest() -> None:
    work = Assignment({"a": [0, 1, 2, 3], "b": [4, 5], "c": []})
    assert [work.next("c"), work.next("c")] == [3, 2]


def test_the_last_shards_under_way_are_asked_a_second_time_and_the_first_answer_counts() -> None:
    work = Assignment({"a": [0, 1], "b": []})
    assert [work.next("a"), work.next("a")] == [0, 1]
    assert work.next("b") == 1
    assert work.next("b") == 0
    assert work.next("b") is None
    assert work.arrived("b", 1)
    assert not work.arrived("a", 1)
    assert work.arrived("a", 0)
    assert work.done
    assert work.under_way("b") == 1


def test_a_busy_donor_is_not_asked_a_second_time() -> None:
    work = Assignment({"a": [0], "b": range(1, 9)})
    assert work.next("a") == 0
    assert [work.next("b") for _ in range(8)] == [*range(1, 9)]
    assert work.next("b") is None
    work.arrived("b", 1)
    assert work.next("b") == 0


def test_what_is_queued_can_be_planned_anew_and_what_is_under_way_stays() -> None:
    work = Assignment({"a": [0, 1, 2, 3], "b": []})
    assert work.next("a") == 0
    assert work.queued == [1, 2, 3]
    work.plan_anew({"a": [3], "b": [1, 2]})
    assert [work.next("a"), work.next("b"), work.next("b")] == [3, 1, 2]
    assert work.under_way("a") == 2


def test_what_a_lost_donor_had_under_way_is_asked_of_others() -> None:
    work = Assignment({"a": [0, 1, 2], "b": []})
    work.next("a")
    work.lost("a")
    assert {work.next("b") for _ in range(3)} == {0, 1, 2}


def test_a_wrong_shard_is_asked_again() -> None:
    work = Assignment({"a": [0], "b": []})
    assert work.next("a") == 0
    work.failed("a", 0)
    assert not work.done
    assert work.next("b") == 0
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
        if (index := work.next(uid)) is not None:
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
        if (index := work.next(uid)) is not None:
            asked[uid].append(index)
        index = asked[uid].pop(0)
        taken += [index] if work.arrived(uid, index) else []
    assert sorted(taken) == list(range(shards))
