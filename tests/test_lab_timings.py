"""The definitions of what a fault cost, on logs written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.lab.timings import (
    Cost,
    cost_of,
    ordinary_round_s,
    stand_still_s,
    t_back_s,
    t_detect_s,
    t_resume_s,
    t_view_s,
    view_after,
)


def fault(t: float, do: str, **fields: Any) -> LogEvent:
    """A line of the ground truth."""
    return LogEvent(t, "lab", "fault", {"do": do, **fields})


def rounds(node: str, epoch: int, *times: float, round_s: float = 0.1) -> list[LogEvent]:
    """Stable rounds told at these times."""
    return [LogEvent(t, node, "round", {"epoch": epoch, "round_s": round_s}) for t in times]


def view(t: float, node: str, epoch: int, members: str) -> LogEvent:
    """That node uses a view of these uids, "a b c'" say, where c' is a second incarnation of c."""
    uids = members.split()
    return LogEvent(
        t,
        node,
        "view",
        {"epoch": epoch, "members": [uid.rstrip("'") for uid in uids], "uids": uids},
    )


def freeze(t: float, node: str, epoch: int, seconds: float) -> LogEvent:
    """It ended at that time."""
    return LogEvent(t, node, "freeze", {"epoch": epoch, "seconds": seconds})


def start(t: float, node: str, uid: str) -> LogEvent:
    """An incarnation begins."""
    return LogEvent(t, node, "start", {"uid": uid})


def merged(*events: LogEvent | Sequence[LogEvent]) -> list[LogEvent]:
    """In order of time."""
    flat = [e for part in events for e in ([part] if isinstance(part, LogEvent) else part)]
    return sorted(flat, key=lambda e: e.t)


STARTS = [start(0, node, node) for node in ("a", "b", "c")]
# a, b and c take a round every 0.1 s; a is killed at 10; b freezes at 10.02, c at 10.03; b uses
# the view of b and c at 10.05, c at 10.06; their first rounds of it are stable at 10.25 and 10.27.
KILL = fault(10.0, "kill", hit="a", part="both")
KILLED = merged(
    STARTS,
    [view(5.0, node, 3, "a b c") for node in ("a", "b", "c")],
    *(rounds(node, 3, 9.8, 9.9, 10.0) for node in ("a", "b", "c")),
    freeze(10.05, "b", 4, 0.03),
    freeze(10.06, "c", 4, 0.03),
    view(10.05, "b", 4, "b c"),
    view(10.06, "c", 4, "b c"),
    rounds("b", 4, 10.25, 10.35, 10.45),
    rounds("c", 4, 10.27, 10.37, 10.45),
)


def about(value: float) -> Any:
    """Equal but for rounding."""
    return pytest.approx(value, abs=1e-9)


def test_an_ordinary_round_is_the_median_of_those_before() -> None:
    events = merged(rounds("a", 1, 1, 2, 3), rounds("b", 1, 1.5, round_s=9.0), rounds("a", 1, 7))
    assert ordinary_round_s(events, before=5) == about(0.1)
    assert ordinary_round_s(events, before=0.5) == 0.0


def test_a_kill_is_detected_when_the_first_survivor_freezes() -> None:
    assert t_detect_s(KILL, KILLED) == about(0.02)


def test_a_freeze_before_the_fault_or_of_the_node_that_was_hit_is_none_of_it() -> None:
    events = merged(freeze(10.1, "b", 4, 0.2), freeze(10.3, "a", 4, 0.1))
    assert t_detect_s(KILL, events) is None


def test_the_view_is_there_when_the_last_survivor_uses_it() -> None:
    answer = view_after(KILL, KILLED)
    assert answer is not None
    assert answer["epoch"] == 4
    assert t_view_s(KILL, KILLED) == about(0.06)


def test_the_run_has_resumed_with_the_last_survivors_next_round_less_an_ordinary_one() -> None:
    assert t_resume_s(KILL, KILLED) == about(0.27 - 0.1)


def test_it_has_not_resumed_while_a_survivor_tells_of_no_round() -> None:
    silent = [e for e in KILLED if not (e.node == "c" and e.event == "round" and e["epoch"] == 4)]
    assert t_resume_s(KILL, silent) is None
    assert t_resume_s(KILL, [e for e in KILLED if e.event != "view"]) is None


def test_a_round_of_an_old_view_told_late_is_no_resumption() -> None:
    events = merged(KILLED, rounds("b", 3, 10.03), rounds("c", 3, 10.03))
    assert t_resume_s(KILL, events) == about(0.27 - 0.1)


def test_the_longest_gap_between_rounds_less_an_ordinary_one_is_a_stand_still() -> None:
    assert stand_still_s("c", KILLED, 10.0, 10.5) == about(0.27 - 0.1)
    assert stand_still_s("c", KILLED, 10.3, 10.5) == about(0.0)
    assert stand_still_s("c", KILLED, 10.0, 20.0) == about(20.0 - 10.45 - 0.1)  # nothing follows
    assert stand_still_s("z", KILLED, 10.0, 20.0) is None


def test_a_stopped_node_is_back_with_its_first_round_in_a_view_that_has_it_again() -> None:
    stop, cont = fault(10.0, "stop", hit="a"), fault(13.0, "cont", hit="a")
    events = merged(
        STARTS,
        view(11.0, "b", 4, "b c"),
        view(11.0, "c", 4, "b c"),
        rounds("a", 3, 13.01),  # what was stable before it was stopped, told late
        start(13.2, "a", "a'"),
        view(13.5, "b", 6, "b c a'"),
        view(13.6, "a", 6, "b c a'"),
        rounds("a", 6, 13.8),
    )
    assert t_back_s("a", stop, cont, events) == about(0.8)
    assert t_back_s("a", stop, cont, [e for e in events if e.t < 13.4]) is None


def test_a_node_that_was_never_left_out_is_back_with_its_next_round() -> None:
    stop, cont = fault(10.0, "stop", hit="a"), fault(10.3, "cont", hit="a")
    events = merged(rounds("a", 3, 10.0, 10.2, 10.35))
    assert t_back_s("a", stop, cont, events) == about(0.05)


def test_a_killed_peer_is_answered_by_the_view_without_its_incarnation_and_needs_no_cure() -> None:
    kill = fault(10.0, "kill", hit="a", part="peer")
    events = merged(
        STARTS,
        view(10.1, "b", 4, "b c"),
        view(10.1, "c", 4, "b c"),
        rounds("b", 4, 10.2),
        rounds("c", 4, 10.2),
        start(10.4, "a", "a'"),
        view(10.9, "b", 6, "b c a'"),
        rounds("a", 6, 11.1),
    )
    assert t_view_s(kill, events) == about(0.1)
    assert t_back_s("a", kill, kill, events) == about(1.1)


def test_a_cut_is_answered_by_the_view_that_leaves_one_of_the_two_out() -> None:
    cut = fault(10.0, "cut", a="b", b="c")
    events = merged(
        STARTS,
        view(10.5, "a", 4, "a b c"),
        view(11.0, "a", 5, "a b"),
        view(11.1, "b", 5, "a b"),
        rounds("a", 5, 11.2),
        rounds("b", 5, 11.3),
    )
    assert t_view_s(cut, events) == about(1.1)
    assert t_resume_s(cut, events) == about(1.3)


def test_a_join_and_a_leave_freeze_nobody() -> None:
    join = fault(10.0, "join", hit="d")
    events = merged(
        rounds("a", 3, 9.8, 9.9),
        view(12.0, "a", 5, "a d"),
        view(12.1, "d", 5, "a d"),
        rounds("a", 5, 12.2),
        rounds("d", 5, 12.2),
    )
    assert t_detect_s(join, events) is None
    assert t_view_s(join, events) == about(2.1)
    assert t_resume_s(join, events) == about(2.1)


def test_the_cost_of_a_fault_in_one() -> None:
    cost = cost_of(KILL, KILLED, until=10.5)
    assert cost == Cost(about(0.02), about(0.06), about(0.17), None, about(0.17))


def test_who_was_no_member_any_more_does_not_stand_still() -> None:
    gone = [start(0, "z", "z"), view(1.0, "z", 2, "a b c z"), *rounds("z", 2, 1.1, 1.2)]
    assert cost_of(KILL, merged(KILLED, gone), until=10.5) == cost_of(KILL, KILLED, until=10.5)


def test_what_comes_after_the_window_counts_for_nothing() -> None:
    assert cost_of(KILL, KILLED, until=10.055) == Cost(
        about(0.02), about(0.05), None, None, pytest.approx(0.0)
    )
