"""A storm's figures, on logs written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from storm_story import FACTS, SHAPE, Story, calm, stopped_and_back

from lightning_chaos.storm.lanes import State
from lightning_chaos.testing.lab.timings import Cost


def test_every_moment_of_a_node_has_one_state() -> None:
    lane = stopped_and_back().figures().lanes[2]
    assert lane.node == "c"
    told = [(span.state, round(span.a, 2), round(span.b, 2)) for span in lane.spans]
    assert told == [
        (State.MEMBER, 0.0, 3.0),
        (State.STOPPED, 3.0, 5.0),
        (State.OUT, 5.0, 5.2),
        (State.PULLING, 5.2, 5.5),
        (State.OUT, 5.5, 5.6),
        (State.MEMBER, 5.6, 12.2),
        (State.DONE, 12.2, 12.7),
    ]


def test_a_nodes_seconds_add_up_to_its_life() -> None:
    for node in stopped_and_back().figures().idle:
        assert node.life_s == pytest.approx(12.7)
    a = stopped_and_back().figures().idle[0].parts
    assert a["holding"] == pytest.approx(0.5)
    assert a["frozen"] == pytest.approx(0.1)
    rounds = 30 + 8 + 63
    assert a["standing still"] == pytest.approx(1.3 - 0.1 + 0.8 - 0.5)
    assert a["waiting"] == pytest.approx(rounds * 0.04 - a["standing still"] - 0.1)


def test_members_and_workers_are_steps_and_throughput_has_bins() -> None:
    pace = stopped_and_back().figures().pace
    assert [(round(t, 1), n) for t, n in pace.members] == [(-1.0, 3), (4.1, 2), (5.6, 3)]
    assert pace.running[-1] == (pytest.approx(12.7), 0)
    assert pace.bin_s == 1.0
    assert pace.rounds_per_s[0] == pytest.approx(10.0)
    assert pace.samples_per_s[0] == pytest.approx(240.0)
    assert pace.rounds_per_s[3] == 0.0


def test_a_fault_has_the_costs_of_its_definitions_and_reasons_for_those_it_has_not() -> None:
    (stop,) = stopped_and_back().figures().faults
    assert (stop.fault.number, stop.fault.text) == (1, "stop c")
    assert stop.cost.detect_s == pytest.approx(1.0)
    assert stop.cost.view_s == pytest.approx(1.1)
    assert stop.cost.back_s == pytest.approx(0.7)
    assert stop.whys == {}

    story = calm()
    story.rounds(0.0, 12.0, 3, "a b c")
    story.do(2.0, "throttle", a="a", b="b", shape={"rate_mbit": 1.0})
    story.do(5.0, "throttle", a="a", b="b", shape={"rate_mbit": 100.0, "delay_ms": 10.0})
    story.do(6.0, "cut", a="b", b="c", how="silent")
    story.do(7.0, "heal", a="*", b="*")
    figures = story.figures()
    throttle, cut = figures.faults
    assert throttle.cost == Cost(None, None, None, None, pytest.approx(0.0, abs=0.01))
    assert set(throttle.whys.values()) == {"a slower link is no loss: no view answers it"}
    assert cut.whys["view_s"] == "no view answered it before the next fault"
    assert cut.whys["back_s"] == "nobody was left out"
    told = [(t.link, t.kind, round(t.a), round(t.b)) for t in figures.links.troubles]
    assert told == [("a – b", "throttled", 2, 5), ("b – c", "cut", 6, 7)]
    assert [(row.kind, row.count) for row in figures.summary] == [("cut", 1), ("throttle", 1)]


def test_nobody_detects_what_is_planned_whoever_freezes_meanwhile() -> None:
    story = stopped_and_back()
    story.do(4.0, "join", hit="d")
    join = story.figures().faults[1]
    assert join.cost.detect_s is None
    assert join.whys["detect_s"] == "planned: nobody freezes"


def test_the_worst_waits_come_first_with_their_reasons_and_faults() -> None:
    first, second = stopped_and_back().figures().waits
    assert first.nodes == ("a", "b")
    assert first.seconds == pytest.approx(1.3)
    assert first.reasons == ("frozen: c: silent", "c stopped by SIGSTOP")
    assert first.faults == (1,)
    assert second.seconds == pytest.approx(0.8)
    assert "held still: serves c" in second.reasons


def test_a_wait_that_no_log_explains_names_the_fault_in_it() -> None:
    story = calm()
    story.rounds(0.0, 3.0, 3, "a b c")
    story.do(3.0, "cut", a="a", b="b", how="silent")
    story.do(5.0, "heal", a="a", b="b")
    story.rounds(5.2, 12.0, 3, "a b c")
    story.end(12.2, "a b c")
    (wait,) = story.figures().waits
    assert wait.reasons == ("nothing in the logs, but: cut a – b (silent)",)


def test_a_storm_that_everybody_lived_through_passes() -> None:
    verdict = stopped_and_back().figures().verdict
    assert verdict.passed
    assert verdict.failures == ()
    assert (verdict.carried_out, verdict.survived) == (1, 1)
    assert verdict.finishing == ("a", "b", "c")


def test_an_end_that_nobody_asked_for_is_put_down_to_the_last_fault_that_met_the_node() -> None:
    story = stopped_and_back()
    story.do(6.0, "cut", a="b", b="c", how="reset")
    story.do(8.0, "kill", hit="a", part="peer")
    story.tell(9.0, "c", "end", reason="NodeLost: too often")
    story.exit(11.0, "c", 1, 'File "/somewhere/of/mine/x.py"\nNodeLost: too often')
    verdict = story.figures().verdict
    (failure,) = [f for f in verdict.failures if f.fault is not None]
    assert not verdict.passed
    assert failure.what == "c ended with exit code 1 at 9.0 s, 3.0 s after: cut b – c (reset)"
    assert failure.fault == 2
    assert failure.lines[-2:] == ('File "…/mine/x.py"', "NodeLost: too often")
    assert verdict.survived == 2


def test_who_is_missing_after_everything_is_healed_did_not_survive() -> None:
    story = stopped_and_back()
    story.facts = replace(story.facts, missing=("c",), running={"c": "still waiting"})
    verdict = story.figures().verdict
    failure = verdict.failures[-1]
    assert failure.what.startswith("c was not in 30 s after everything was healed")
    assert failure.lines[-1] == "still waiting"

    story.facts = replace(story.facts, not_survivable="after cut a b: no side")
    assert story.figures().verdict.passed, "it need not have lived through that"


def test_digests_that_differ_and_two_views_of_one_epoch_break_promises() -> None:
    story = stopped_and_back()
    story.end(12.2, "c", digest="d2")
    story.facts = replace(story.facts, not_survivable="after cut a b: no side")
    verdict = story.figures().verdict
    assert not verdict.passed, "whatever the schedule"
    assert verdict.digest == ""
    assert "digests of the final state differ" in verdict.failures[0].what

    story = stopped_and_back()
    story.view(6.0, 6, "a/1 b/1")
    assert any(
        "epoch 6 has the members a, b at a and a, b, c" in f.what
        for f in story.figures().verdict.failures
    )


def test_a_leaver_that_stays_is_named() -> None:
    story = stopped_and_back()
    story.do(7.0, "leave", hit="b")
    exits = {n: e for n, e in story.facts.exits.items() if n != "b"}
    story.facts = replace(story.facts, exits=exits, running={"b": "hm"})
    failure = story.figures().verdict.failures[-1]
    assert failure.what == "b was asked to leave at 7.0 s and still ran at the end"
    assert failure.fault == 2


def test_a_node_that_never_came_in_is_starting_until_its_end() -> None:
    story = calm()
    story.rounds(0.0, 12.0, 3, "a b c")
    story.do(2.0, "join", hit="d")
    story.start(2.0, "d")
    story.exit(9.0, "d", 1)
    figures = story.figures()
    assert [span.state for span in figures.lanes[3].spans] == [State.STARTING]
    (fault,) = figures.faults
    assert fault.cost.view_s is None
    assert any(f.what.startswith("d ended with exit code 1") for f in figures.verdict.failures)


def test_a_storm_without_a_single_event_has_figures_too() -> None:
    figures = Story(facts=replace(FACTS, founders=())).figures()
    assert figures.lanes == ()
    assert figures.samples == 0
    assert not figures.verdict.passed
    assert [f.what for f in figures.verdict.failures] == ["no round became stable"]


def test_ten_minutes_have_no_more_bins_than_can_be_seen() -> None:
    story = calm()
    story.rounds(0.0, 3.0, 3, "a b c")
    story.facts = replace(story.facts, over=FACTS.began + 3000.0, shape=SHAPE)
    pace = story.figures().pace
    assert pace.bin_s == 5.0
    assert len(pace.rounds_per_s) == 600
