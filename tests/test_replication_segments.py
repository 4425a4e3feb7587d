"""A state in segments: cut evenly, read one at a time, and who is right about one."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.errors import StateError
from lightning_chaos.replication.majority import rule
from lightning_chaos.replication.segments import Segments


def tree() -> dict[str, object]:
    """40 + 12 bytes in one layer, 400 in the optimizer, and settings."""
    return {
        "parameters": OrderedDict(weight=torch.arange(10.0), bias=torch.ones(3)),
        "optimizers": [{"state": {0: {"exp_avg": torch.zeros(10, 10)}}, "lr": 0.1}],
    }


def digests(state: object, segment_bytes: int = 128) -> list[bytes]:
    segments = Segments(state, segment_bytes)
    return [segments.digest(i) for i in range(len(segments))]


def test_segments_are_full_and_say_what_is_in_them() -> None:
    segments = Segments(tree(), 128)
    names = [segments.name(i) for i in range(len(segments))]
    average = "optimizers[0].state.0.exp_avg"
    first = f"parameters.weight … {average}"
    assert names == [first, average, average, average, "all that is no tensor"]


def test_one_flipped_bit_changes_the_digest_of_its_segment_alone() -> None:
    before, state = digests(tree()), tree()
    state["optimizers"][0]["state"][0]["exp_avg"].view(torch.int32)[5, 5] ^= 1  # type: ignore[index]
    changed = [i for i, (a, b) in enumerate(zip(before, digests(state), strict=True)) if a != b]
    assert changed == [2]


def test_a_changed_setting_changes_the_last_segment_alone() -> None:
    before, state = digests(tree()), tree()
    state["optimizers"][0]["lr"] = 0.2  # type: ignore[index]
    after = digests(state)
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]


def test_the_same_values_in_another_layout_of_memory_have_the_same_digest() -> None:
    rows = torch.arange(12.0).reshape(3, 4)
    columns = rows.t().contiguous().t()
    assert digests([rows]) == digests([columns])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int8, torch.bool])
def test_every_type_of_number_is_digested(dtype: torch.dtype) -> None:
    zeros, ones = torch.zeros(100).to(dtype), torch.ones(100).to(dtype)
    assert digests([zeros], 64) != digests([ones], 64)


def test_an_empty_state_has_one_segment() -> None:
    assert len(Segments({"nothing": torch.zeros(0)})) == 1


def test_what_cannot_be_laid_out_is_named() -> None:
    segments = Segments({"schedulers": [{"odd": object()}]})
    with pytest.raises(StateError, match="odd has type object"):
        segments.digest(0)


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 10))
def test_segments_hold_every_value_once_and_none_is_too_long(sizes: list[int], room: int) -> None:
    total = sum(sizes)
    state = list(torch.arange(float(total)).split(sizes)) if total else []
    segments = Segments(state, 4 * room)
    assert len(segments) == -(-total // room) + 1


# ---- who is right --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digests", "trusted", "right", "wrong"),
    [
        ("xxx", "", "abc", ""),
        ("xyx", "", "ac", "b"),
        ("yxx", "", "bc", "a"),  # the oldest too
        ("xy", "", "a", "b"),  # of two the oldest
        ("yxxy", "", "ad", "bc"),
        ("xyz", "", "a", "bc"),
        ("xyz", "bc", "b", "ac"),  # the oldest was wrong about a segment
        ("-xx", "", "bc", ""),  # one that told none
        ("-yx", "a", "b", "c"),  # nobody who is trusted told one
        ("---", "", "", ""),
    ],
)
def test_most_members_are_right_and_of_as_many_the_oldest_ones(
    digests: str, trusted: str, right: str, wrong: str
) -> None:
    told = [b"" if letter == "-" else letter.encode() for letter in digests]
    ruling = rule("abcd"[: len(told)], told, trusted)
    assert ("".join(ruling.right), "".join(ruling.wrong)) == (right, wrong)
