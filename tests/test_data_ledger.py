from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.data.ledger import (
    Ledger,
    Slice,
    commit,
    micro_batches,
    positions,
    rounds_left,
    samples_in,
    share_out,
)
from lightning_chaos.errors import DataError


def ledger(size: int, *committed: tuple[int, int]) -> Ledger:
    return Ledger(seed=0, epoch=0, size=size, committed=committed)


def test_a_round_takes_the_lowest_positions_in_member_order() -> None:
    assert share_out(ledger(100), [4] * 3) == (((0, 4),), ((4, 8),), ((8, 12),))


def test_the_slice_of_a_dead_member_is_filled_by_the_next_round() -> None:
    first = share_out(ledger(100), [4] * 3)
    survived = commit(ledger(100), (first[0], first[2]))

    assert survived.committed == ((0, 4), (8, 12))
    assert share_out(survived, [4] * 2) == (((4, 8),), ((12, 16),))


def test_a_slice_may_span_holes() -> None:
    holed = ledger(20, (2, 5), (6, 10))
    assert share_out(holed, [4] * 2) == (((0, 2), (5, 6), (10, 11)), ((11, 15),))


def test_what_is_left_is_shared_out_evenly_and_older_members_take_more() -> None:
    assert [samples_in(s) for s in share_out(ledger(11), [4] * 3)] == [4, 4, 3]


def test_a_member_with_a_smaller_share_takes_fewer() -> None:
    assert share_out(ledger(100), (4, 2, 4)) == (((0, 4),), ((4, 6),), ((6, 10),))
    assert [samples_in(s) for s in share_out(ledger(9), (4, 2, 4))] == [4, 2, 3]
    assert [samples_in(s) for s in share_out(ledger(6), (4, 2, 4))] == [3, 0, 3]
    assert rounds_left(ledger(29), (4, 2, 4)) == 3


def test_nobody_gets_a_single_sample_if_that_can_be() -> None:
    assert [samples_in(s) for s in share_out(ledger(2), [4] * 3)] == [2, 0, 0]
    assert [samples_in(s) for s in share_out(ledger(5), [4] * 3)] == [3, 2, 0]
    assert [samples_in(s) for s in share_out(ledger(1), [4] * 3)] == [1, 0, 0]
    assert [samples_in(s) for s in share_out(ledger(2), [1] * 3)] == [1, 1, 0]
    assert [samples_in(s) for s in share_out(ledger(13), [4] * 3)] == [3, 4, 4]  # and then two
    assert [samples_in(s) for s in share_out(ledger(9), (2, 4, 2))] == [2, 3, 2]
    assert [samples_in(s) for s in share_out(ledger(5), [2] * 2)] == [2, 2]
    assert [samples_in(s) for s in share_out(ledger(13), [4] * 3, drop_last=True)] == [4, 4, 4]
    assert [b.weight for b in micro_batches(range(3), 4, 2, 100)] == [3, 0]


def test_drop_last_ends_the_epoch_before_the_round_that_is_not_full() -> None:
    almost = ledger(11)
    assert share_out(almost, [4] * 3, drop_last=True) == ((), (), ())
    assert rounds_left(almost, [4] * 3, drop_last=True) == 0
    assert rounds_left(almost, [4] * 3) == 1
    assert rounds_left(ledger(35), [4] * 3, drop_last=True) == 2
    assert rounds_left(ledger(35), [4] * 3) == 3


@pytest.mark.parametrize(
    "slices",
    [
        (((4, 6),),),
        (((0, 3),), ((2, 4),)),
        (((0, 2), (1, 3)),),
    ],
)
def test_no_position_is_committed_twice(slices: tuple[Slice, ...]) -> None:
    with pytest.raises(DataError, match="count twice"):
        commit(ledger(10, (5, 8)), slices)


@pytest.mark.parametrize("wrong", [(8, 11), (-1, 2), (3, 3), (4, 2)])
def test_only_positions_of_the_dataset_are_committed(wrong: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="dataset of 10 samples"):
        commit(ledger(10), ((wrong,),))


def test_micro_batches_are_near_equal_and_keep_the_order() -> None:
    batches = micro_batches(range(10, 19), micro=8, count=2, size=100)
    assert [b.positions for b in batches] == [(10, 11, 12, 13, 14), (15, 16, 17, 18)]
    assert [b.weight for b in batches] == [5, 4]


def test_a_member_without_samples_runs_stand_ins_of_no_weight() -> None:
    batches = micro_batches([], micro=4, count=2, size=100)
    assert [b.is_idle for b in batches] == [True, True]
    assert [b.positions for b in batches] == [(0, 1), (0, 1)]


def test_stand_ins_exceed_neither_batch_size_nor_dataset() -> None:
    assert micro_batches([], micro=1, count=1, size=9)[0].positions == (0,)
    assert micro_batches([], micro=4, count=1, size=1)[0].positions == (0,)


def test_positions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="do not fit"):
        micro_batches(range(9), micro=4, count=2, size=100)


@given(
    share=st.lists(st.integers(0, 999), unique=True, max_size=60),
    micro=st.integers(1, 8),
    spare=st.integers(0, 3),
)
def test_micro_batches_hold_every_position_once(share: list[int], micro: int, spare: int) -> None:
    need = -(-len(share) // micro)
    batches = micro_batches(share, micro, need + spare, size=1000)
    real = [b for b in batches if not b.is_idle]

    assert len(batches) == need + spare
    assert [p for b in real for p in b.positions] == share
    assert all(len(b.positions) <= micro for b in batches)
    assert not real or max(b.weight for b in real) - min(b.weight for b in real) <= 1


@given(
    size=st.integers(1, 200),
    batch=st.integers(1, 9),
    drop_last=st.booleans(),
    data=st.data(),
)
def test_every_position_counts_exactly_once_whatever_happens(
    size: int, batch: int, drop_last: bool, data: st.DataObject
) -> None:
    """Members come and go between rounds; in any round all but one may lose their slice."""
    ours = Ledger(seed=3, epoch=0, size=size)
    seen: list[int] = []
    losses = 0
    while True:
        shares = data.draw(st.lists(st.integers(1, batch), min_size=1, max_size=5))
        members = len(shares)
        slices = share_out(ours, shares, drop_last=drop_last)
        assert (rounds_left(ours, shares, drop_last=drop_last) > 0) == any(slices)
        assert all(samples_in(s) <= most for s, most in zip(slices, shares, strict=True))
        if not any(slices):
            break
        kept = slices
        if losses < 20:
            alive = data.draw(
                st.lists(st.booleans(), min_size=members, max_size=members).filter(any)
            )
            kept = tuple(s for s, lives in zip(slices, alive, strict=True) if lives)
            losses += kept != slices
        before = ours
        ours = commit(ours, kept)
        # Another member hears of the same slices in another order and agrees.
        assert commit(before, reversed(kept)) == ours
        seen += [p for s in kept for p in positions(s)]
    assert len(seen) == len(set(seen)) == size - ours.left
    assert ours.left < sum(shares) if drop_last else ours.left == 0


@given(size=st.integers(2, 200), data=st.data())
def test_whoever_comes_and_goes_nobody_gets_a_single_sample(size: int, data: st.DataObject) -> None:
    ours = ledger(size)
    losses = 0
    while True:
        shares = data.draw(st.lists(st.integers(3, 9), min_size=1, max_size=5))
        slices = share_out(ours, shares)
        if not any(slices):
            break
        assert 1 not in map(samples_in, slices)
        lost = None
        if losses < 5 and len(slices) > 1:
            lost = data.draw(st.none() | st.integers(0, len(slices) - 1))
            losses += lost is not None
        ours = commit(ours, [one for rank, one in enumerate(slices) if rank != lost])
    assert ours.left == 0


@given(
    size=st.integers(1, 300),
    shares=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    drop_last=st.booleans(),
)
def test_the_rounds_left_are_the_rounds_that_follow(
    size: int, shares: list[int], drop_last: bool
) -> None:
    ours = ledger(size)
    expected = rounds_left(ours, shares, drop_last=drop_last)
    rounds = 0
    while any(slices := share_out(ours, shares, drop_last=drop_last)):
        ours = commit(ours, slices)
        rounds += 1
    assert rounds == expected
    assert len(ours.committed) <= 1
