"""The demo's verdict: a faithful run passes, and every broken promise is named."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from lightning_chaos.demo.board import Board
from lightning_chaos.demo.report import (
    Facts,
    Replayed,
    Report,
    make_report,
    print_report,
    write_json,
)
from lightning_chaos.demo.timings import Deed
from lightning_chaos.monitor.runlog import LogEvent

SIZE = 60
BATCH = 5
ROUND_S = 0.02
KILL_ROUND, LEAVE_ROUND, LAST_ROUND = 8, 12, 18
JOIN_ROUND = 4
KILLED = "n1: its process is gone"
"""Why a view comes in the middle of a round."""
NODES = ("n1", "n2", "n3", "n4")


def members_of(round_: int) -> tuple[int, list[str]]:
    """Epoch of the view and members in that round of the synthetic run."""
    if round_ < JOIN_ROUND:
        return 3, ["n1", "n2", "n3"]
    if round_ < KILL_ROUND:
        return 5, ["n1", "n2", "n3", "n4"]
    if round_ < LEAVE_ROUND:
        return 6, ["n2", "n3", "n4"]
    return 7, ["n2", "n4"]


def at(round_: float) -> float:
    """When a round of the synthetic run ends."""
    return 1000 + round_ * ROUND_S


def event(t: float, node: str, name: str, **fields: Any) -> LogEvent:
    return LogEvent(t, node, name, fields)


def view(
    t: float,
    node: str,
    epoch: int,
    round_: int,
    learners: tuple[str, ...] = (),
    reason: str = "planned",
) -> LogEvent:
    members = members_of(round_)[1] if not learners else ["n1", "n2", "n3"]
    return event(
        t,
        node,
        "view",
        epoch=epoch,
        members=members,
        uids=[],
        learners=list(learners),
        switch=JOIN_ROUND if reason == KILLED else round_,
        round=round_ if reason == KILLED else round_ - 1,
        reason=reason,
    )


def rounds() -> list[LogEvent]:
    found: list[LogEvent] = []
    data_epoch, at_position = 0, 0
    for r in range(LAST_ROUND + 1):
        epoch, members = members_of(r)
        if at_position == SIZE:
            data_epoch, at_position = data_epoch + 1, 0
        cuts = [min(at_position + BATCH * i, SIZE) for i in range(len(members) + 1)]
        at_position = cuts[-1]
        pieces = list(itertools.pairwise(cuts))
        for node in members:
            fields: dict[str, Any] = {
                "round": r,
                "epoch": epoch,
                "data_epoch": data_epoch,
                "members": [f"{m}/1" for m in members],
                "weights": [b - a for a, b in pieces],
                "ranges": [[[a, b]] if b > a else [] for a, b in pieces],
                "size": SIZE,
                "seed": 7,
                "shuffle": True,
                "loss": 0.5,
                "round_s": ROUND_S,
                "wait_s": 0.0,
            }
            found.append(event(at(r + 1), node, "round", **fields))
    return found


def faithful() -> list[LogEvent]:
    """Logs of a run in which every promise was kept."""
    asked, done = at(JOIN_ROUND), at(JOIN_ROUND + 0.6)
    events = rounds()
    events += [
        event(at(0), n, "start", uid=f"{n}/1", pid=1, peer_pid=2, address="", run="r")
        for n in NODES
    ]
    events += [view(at(0), n, 3, 0) for n in NODES[:3]]
    events.append(event(asked, "n4", "asks", round=JOIN_ROUND))
    events += [view(asked, n, 4, JOIN_ROUND, learners=("n4",)) for n in NODES]
    events.append(
        event(
            done,
            "n4",
            "pull",
            round=JOIN_ROUND,
            bytes=900,
            seconds=0.01,
            shards=90,
            shard_bytes=10,
            kept_bytes=0,
            per_donor=[
                {"node": n, "bytes": 300, "shards": 30, "first_t": asked + i * 1e-3, "last_t": done}
                for i, n in enumerate(NODES[:3])
            ],
        )
    )
    events += [view(done, n, 5, JOIN_ROUND) for n in NODES]
    events += [
        event(done, n, "hold", round=JOIN_ROUND, epoch=4, seconds=0.012, serving=["n4"])
        for n in NODES[:3]
    ]
    events += [
        view(at(KILL_ROUND + 0.2), n, 6, KILL_ROUND, reason=KILLED) for n in ("n2", "n3", "n4")
    ]
    events += [
        event(at(KILL_ROUND + 0.2), n, "freeze", epoch=6, seconds=0.004, reason="", redone=True)
        for n in ("n2", "n3", "n4")
    ]
    events.append(event(at(LEAVE_ROUND), "n3", "leave", round=LEAVE_ROUND))
    events += [view(at(LEAVE_ROUND), n, 7, LEAVE_ROUND) for n in ("n2", "n4")]
    for n in ("n2", "n4"):
        events.append(event(at(20), n, "final", round=LAST_ROUND, digest="ab" * 16, samples=9))
        events.append(event(at(21), n, "metrics", stage="test", values={"test_acc": 0.97}))
        events.append(event(at(22), n, "end", reason="finished"))
    return sorted(events, key=lambda e: e.t)


FACTS = Facts(
    nodes=NODES,
    newcomer="n4",
    deeds=[
        Deed("kill", "n1", at(KILL_ROUND)),
        Deed("leave", "n3", at(LEAVE_ROUND - 1)),
        Deed("stop", "", at(17)),
    ],
    exits={"n1": -9, "n2": 0, "n3": 0, "n4": 0},
    problem="",
    seconds=30.0,
    accuracy_required=True,
)


def altered(
    choose: Callable[[LogEvent], bool], change: Callable[[dict[str, Any]], None]
) -> list[LogEvent]:
    """The faithful run with some of its events changed."""
    events = []
    for found in faithful():
        fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found.fields))
        if choose(found):
            change(fields)
        events.append(LogEvent(found.t, found.node, found.event, fields))
    return events


def without(choose: Callable[[LogEvent], bool]) -> list[LogEvent]:
    return [e for e in faithful() if not choose(e)]


def failures(events: list[LogEvent], facts: Facts = FACTS) -> list[str]:
    report = make_report(events, facts)
    assert report.passed == (not report.failures)
    return report.failures


def in_round(round_: int) -> Callable[[LogEvent], bool]:
    return lambda e: e.event == "round" and e["round"] == round_


def with_facts(**changes: Any) -> Facts:
    return dataclasses.replace(FACTS, **changes)


def test_a_faithful_run_passes_and_its_figures_are_right() -> None:
    report = make_report(faithful(), FACTS)
    assert report.failures == []
    assert report.members == ["n2", "n4"]
    assert report.rounds == LAST_ROUND + 1
    join, kill, leave = report.timings
    assert join.took_s == pytest.approx(0.6 * ROUND_S)
    assert join.still_s == 0.012
    assert kill.took_s == pytest.approx(0.0, abs=1e-9)
    assert kill.still_s == 0.004
    assert leave.took_s == pytest.approx(ROUND_S)
    assert leave.still_s == pytest.approx(0.0, abs=1e-9)
    (pull,) = report.pulls
    assert [d.node for d in pull.donors] == ["n1", "n2", "n3"]
    assert pull.overlap_s == pytest.approx(0.6 * ROUND_S - 2e-3)
    assert [e.complete for e in report.epochs] == [True] * (len(report.epochs) - 1) + [False]
    assert all(e.committed == SIZE for e in report.epochs if e.complete)


def test_different_digests_fail() -> None:
    events = altered(
        lambda e: e.event == "final" and e.node == "n4", lambda f: f.update(digest="cd" * 16)
    )
    (failure,) = failures(events)
    assert "differ" in failure
    assert "n2 abababababab, n4 cdcdcdcdcdcd" in failure


def test_a_finishing_node_without_a_digest_fails() -> None:
    assert failures(without(lambda e: e.event == "final" and e.node == "n2")) == [
        "n2 finished without a digest of its state"
    ]


def test_a_donor_that_served_too_little_fails() -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["per_donor"][1]["bytes"] = 60

    (failure,) = failures(altered(lambda e: e.event == "pull", change))
    assert failure == "n2 served 9% of the bytes that n4 pulled, less than 10%"


def test_a_member_that_served_nothing_at_all_fails_too() -> None:
    (failure,) = failures(altered(lambda e: e.event == "pull", lambda f: f["per_donor"].pop()))
    assert failure.startswith("n3 served 0%")


def test_a_donor_off_the_plan_fails_where_that_was_asked_for_and_is_shown_anyway() -> None:
    def change(fields: dict[str, Any]) -> None:
        for donor, planned in zip(fields["per_donor"], (300, 345, 330), strict=True):
            donor |= {"planned_bytes": planned, "planned_bytes_per_s": 25e6, "bytes_per_s": 24e6}
        fields |= {"planned_s": 0.5, "predicted_s": 1.25}

    events = altered(lambda e: e.event == "pull", change)
    assert failures(events) == []
    asked_for = make_report(events, with_facts(plan_required=True))
    assert asked_for.failures == ["n2 gave 300 bytes to n4, planned were 345"]
    screen = io.StringIO()
    print_report(asked_for, Console(file=screen, width=200))
    assert "(1.25 s by the plan of 0.50 s)" in screen.getvalue()
    assert "200.0" in screen.getvalue()
    assert "192.0" in screen.getvalue()


def test_a_newcomer_that_never_pulled_fails() -> None:
    assert failures(without(lambda e: e.event == "pull")) == ["n4 never pulled the state"]


def test_a_sample_that_counts_twice_fails() -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["ranges"][0] = [[0, 5]]

    assert "epoch 0: 5 samples counted more than once (first: position 0)" in failures(
        altered(in_round(1), change)
    )


def test_a_sample_that_is_missing_from_a_complete_epoch_fails() -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["ranges"][2] = [[10, 14]]

    assert failures(altered(in_round(0), change)) == [
        f"epoch 0: 1 of {SIZE} samples never counted (first: position 14)"
    ]


def test_an_epoch_that_was_cut_short_may_lack_samples() -> None:
    report = make_report(faithful(), FACTS)
    assert report.epochs[-1].committed < SIZE
    assert report.passed


def test_a_range_outside_the_data_fails() -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["ranges"][0] = [[SIZE, SIZE + 5]]

    assert any("lie outside" in f for f in failures(altered(in_round(LAST_ROUND), change)))


def test_logs_that_tell_a_round_differently_fail() -> None:
    events = altered(
        lambda e: in_round(9)(e) and e.node == "n4", lambda f: f.update(weights=[1, 2, 3])
    )
    assert failures(events) == ["round 9 has other weights in the log of n4 than in that of n2"]


def test_only_the_loss_and_times_of_a_round_may_differ_between_logs() -> None:
    events = altered(
        lambda e: in_round(9)(e) and e.node == "n4", lambda f: f.update(loss=9.0, wait_s=1.0)
    )
    assert failures(events) == []


def test_a_round_that_is_in_no_log_fails() -> None:
    assert "round 7 is in no log" in failures(without(in_round(7)))


def test_an_epoch_that_was_skipped_fails() -> None:
    events = altered(
        lambda e: e.event == "round" and e["data_epoch"] > 0,
        lambda f: f.update(data_epoch=f["data_epoch"] + 1),
    )
    assert "epoch 1 of the data was skipped" in failures(events)


def test_a_run_without_a_stable_round_fails() -> None:
    assert "no round became stable" in failures(without(lambda e: e.event == "round"))


@pytest.mark.parametrize("value", [0.94, float("nan")])
def test_a_poor_accuracy_fails(value: float) -> None:
    events = [
        LogEvent(e.t, e.node, e.event, {**e.fields, "values": {"test_acc": value}})
        if e.event == "metrics" and e.node == "n2"
        else e
        for e in faithful()
    ]
    assert failures(events) == [f"n2: test_acc is {value:.3f}, less than 0.95"]


def test_a_missing_accuracy_fails_for_our_script_and_is_said_for_another() -> None:
    events = without(lambda e: e.event == "metrics")
    assert failures(events) == [f"{n} reported no test accuracy" for n in ("n2", "n4")]
    report = make_report(events, with_facts(accuracy_required=False))
    assert report.passed
    assert "test accuracy is not checked: no metric named *acc*" in report.notes


def test_a_node_that_got_sigterm_and_did_not_leave_politely_fails() -> None:
    assert failures(without(lambda e: e.event == "leave")) == [
        "n3 got SIGTERM but did not leave politely"
    ]


def test_a_finishing_node_with_an_exit_code_fails_but_the_killed_one_may_have_one() -> None:
    facts = with_facts(exits={"n1": -9, "n2": 1, "n3": 0, "n4": 0})
    assert failures(faithful(), facts) == ["n2 ended with exit code 1"]


def test_a_replay_that_arrives_elsewhere_fails_and_one_that_does_not_is_told() -> None:
    other = with_facts(replayed=Replayed(False, "NOT EQUAL", 4.0))
    assert failures(faithful(), other) == ["replay: NOT EQUAL"]
    screen = io.StringIO()
    same = with_facts(replayed=Replayed(True, "equal, bit for bit", 4.0))
    report = make_report(faithful(), same)
    assert report.passed
    print_report(report, Console(file=screen, width=200))
    assert "recomputed by one process in 4.0 s: equal, bit for bit" in screen.getvalue()


def test_a_demo_that_was_cut_short_fails_with_its_cause_alone() -> None:
    events = without(lambda e: e.event in ("final", "metrics"))
    facts = with_facts(problem="180 s have passed; still waiting for the kill")
    assert failures(events, facts) == ["180 s have passed; still waiting for the kill"]


def test_the_report_prints_whatever_is_missing_and_its_json_can_be_read(tmp_path: Path) -> None:
    for events in (faithful(), []):
        report = make_report(events, FACTS)
        console = Console(record=True, width=120, file=(tmp_path / "out").open("w"))
        print_report(report, console)
        console.file.close()
        text = console.export_text()
        assert ("passed in 30.0 s" in text) == report.passed
        assert all(f"FAILED: {f}" in text.replace("\n", " ") for f in report.failures)
        path = tmp_path / "report.json"
        write_json(report, path)
        read = json.loads(path.read_text())
        assert (read["passed"], read["failures"]) == (report.passed, report.failures)
        assert msgspec.convert(read, Report) == report


def test_the_board_tells_the_story_and_can_be_drawn_after_every_event(tmp_path: Path) -> None:
    board = Board("title", NODES, at(0))
    lines = []
    with (tmp_path / "out").open("w") as file:
        console = Console(file=file, width=120)
        for e in faithful():
            lines.append(board.apply(e))
            console.print(board.render())
        board.apply(event(at(30), "n4", "pulling", bytes=5, total=10, per_donor={"n1": 3}))
        console.print(board.render())
    assert board.members == ["n2", "n4"]
    assert board.round == LAST_ROUND
    text = "\n".join(line for line in lines if line)
    assert "view 6: n2 n3 n4, from round 8: n1: its process is gone" in text
    assert "n4 stood still" not in text
    assert "n1 stood still 0.01 s to serve n4" in text
    assert "from n1" in (tmp_path / "out").read_text()


def test_the_board_marks_slow_members_until_they_are_fast_again() -> None:
    board = Board("title", NODES, at(0))
    times = {"seconds": 1.2, "usual": 0.1}
    slow = board.apply(event(at(1), "n2", "slow", slow=True, share=16, **times))
    assert slow is not None
    assert "n2 is slow (1.20 s a round, usual are 0.10 s)" in slow
    assert board.apply(event(at(2), "n2", "slow", slow=True, share=2, **times)) is None
    assert board.rows["n2"].slow
    board.apply(event(at(3), "n2", "slow", slow=False, share=16, **times))
    assert not board.rows["n2"].slow


def test_a_state_of_few_shards_is_not_held_to_equal_shares() -> None:
    def one_shard(event: LogEvent) -> LogEvent:
        if event.event != "pull":
            return event
        donors = [{**d, "bytes": 0} for d in event["per_donor"]]
        donors[0]["bytes"] = event["bytes"]
        return msgspec.structs.replace(
            event, fields={**event.fields, "shards": 1, "per_donor": donors}
        )

    report = make_report([one_shard(e) for e in faithful()], FACTS)
    assert not report.failures
    assert any("too small to share" in note for note in report.notes)
    console = Console(width=120)
    with console.capture() as said:
        print_report(report, console)
    assert "passed in" in said.get()
    assert "every donor served" not in said.get()


def test_a_join_is_timed_from_the_round_the_newcomer_stood_by_for() -> None:
    early = [
        msgspec.structs.replace(e, t=e.t - 5.0) if e.event == "asks" else e for e in faithful()
    ]
    took_s = make_report(early, FACTS).timings[0].took_s
    assert took_s == make_report(faithful(), FACTS).timings[0].took_s
