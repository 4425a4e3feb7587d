"""What frozen members do next, from their reports and the links of the new view."""

from __future__ import annotations

import pytest
from collective_network import member, view_of

from lightning_chaos.protocol.flush import Unrecoverable, decide
from lightning_chaos.protocol.values import OpId, Report, Uid, View

A, B, C, D = (member(name).uid for name in "abcd")
ABC = view_of(2, "abc")
OTHER = view_of(2, "abc", missing=("ac",))
LAST, NEXT = OpId(4, 0), OpId(5, 0)


def finished(op: OpId, *, keeps: bool = True) -> Report:
    """Between two operations."""
    return Report(op, keeps, None, (), 0, (), 5)


def in_it(*held: int, last: OpId = LAST, op: OpId = NEXT, view: View = ABC) -> Report:
    """In an operation of four chunks, some of whose results are here."""
    return Report(last, True, op, held, 4, view.uids, 5, view.plan.mark)


def reports(**of: Report) -> dict[Uid, Report]:
    return {member(name).uid: report for name, report in of.items()}


def test_all_who_keep_a_finished_operation_pass_it_to_those_behind() -> None:
    told = reports(a=finished(NEXT), b=in_it(1), c=finished(NEXT))
    decision = decide(told, ABC)
    assert (decision.finished, decision.sources, decision.behind) == (NEXT, (A, C), (B,))
    assert decision.held == {}


def test_one_that_finished_it_and_keeps_nothing_is_no_source_and_passes_nothing_on() -> None:
    told = reports(a=finished(NEXT), b=finished(NEXT, keeps=False), c=in_it())
    assert decide(told, ABC).sources == (A,)
    with pytest.raises(Unrecoverable) as lost:
        decide(told, OTHER)
    assert lost.value.uids == (C,)


def test_one_that_has_not_begun_what_others_have_finished_cannot_be_helped() -> None:
    with pytest.raises(Unrecoverable) as lost:
        decide(reports(a=finished(NEXT), b=finished(LAST), c=in_it()), ABC)
    assert lost.value.uids == (B,)


def test_chunks_held_are_kept_by_the_same_members_under_the_same_plan() -> None:
    decision = decide(reports(a=in_it(0), b=in_it(0, 2), c=in_it()), ABC)
    assert decision.held == {0: A, 2: B}
    assert decision.contributors == ABC.uids


def test_under_another_plan_all_is_done_again_unless_all_is_held() -> None:
    decision = decide(reports(a=in_it(0, 1), b=in_it(0, 2), c=in_it()), OTHER)
    assert (decision.held, decision.contributors) == ({}, ())
    decision = decide(reports(a=in_it(0, 1), b=in_it(0, 2), c=in_it(3)), OTHER)
    assert decision.held == {0: A, 1: A, 2: B, 3: C}


def test_without_a_contributor_all_is_done_again_unless_all_is_held() -> None:
    left = view_of(2, "ab")
    assert decide(reports(a=in_it(0, 1), b=in_it(0, 2)), left).held == {}
    decision = decide(reports(a=in_it(0, 1), b=in_it(2, 3)), left)
    assert decision.held == {0: A, 1: A, 2: B, 3: B}
    assert decision.contributors == ABC.uids


def test_nothing_is_kept_that_somebody_has_begun_anew_under_another_plan() -> None:
    told = reports(a=in_it(0, 1), b=in_it(view=OTHER), c=in_it(2, 3))
    assert decide(told, ABC).held == {}
