"""Faults as values: the script, its YAML, storms, and whether a run must survive."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lightning_chaos.errors import ConfigError
from lightning_chaos.testing.lab.conditions import Cut, Shape
from lightning_chaos.testing.lab.faults import (
    Cont,
    CutLink,
    CutOneWay,
    Fault,
    Heal,
    Join,
    Kill,
    Leave,
    Part,
    Schedule,
    Stop,
    Throttle,
    at,
)
from lightning_chaos.testing.lab.storm import storm
from lightning_chaos.testing.lab.survival import Verdict, survivable

ABC = ("a", "b", "c")

YAML = """
- {at: {round: 5}, do: kill, node: n2}
- {at: {round: 3}, do: kill, node: n1, part: peer}
- {at: {round: 6}, do: stop, node: n1, part: worker}
- {at: {round: 7}, do: cont, node: n1}
- {at: {round: 8}, do: leave, node: n1}
- {at: {round: 9}, do: join, node: n9}
- {at: {round: 10}, do: cut, a: n1, b: n3}
- {at: {round: 11}, do: cut_one_way, a: n1, b: n3, how: reset}
- {at: {round: 12}, do: throttle, a: n1, b: n3, shape: {rate_mbit: 20, delay_ms: 5}}
- {at: {round: 13}, do: heal}
"""
PYTHON = Schedule.of(
    at(round=3).kill("n1", Part.PEER),
    at(round=5).kill("n2"),
    at(round=6).stop("n1", Part.WORKER),
    at(round=7).cont("n1"),
    at(round=8).leave("n1"),
    at(round=9).join("n9"),
    at(round=10).cut("n1", "n3"),
    at(round=11).cut_one_way("n1", "n3", Cut.RESET),
    at(round=12).throttle("n1", "n3", Shape(rate_mbit=20, delay_ms=5)),
    at(round=13).heal(),
)


# ---- the script ------------------------------------------------------------------------------


def test_a_schedule_is_the_same_in_python_and_in_yaml(tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(YAML)
    assert Schedule.read(file) == PYTHON
    PYTHON.write(file)
    assert Schedule.read(file) == PYTHON


def test_faults_happen_in_order_of_time_and_those_of_one_time_as_they_were_given() -> None:
    late, early, early_too = (
        at(seconds=9).leave("a"),
        at(seconds=1.5).kill("b"),
        at(seconds=1.5).join("c"),
    )
    assert Schedule.of(late, early, early_too).faults == (early, early_too, late)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {at: {round: 5}, do: kil, node: n2}", "fault 1: .*kil"),
        ("- {at: {round: 5}, do: kill}", "fault 1: .*node"),
        ("- {at: {round: 5}, do: kill, node: n2, prt: peer}", "fault 1: .*prt"),
        ("- {at: {round: 5, seconds: 1}, do: heal}", "fault 1: .*one of the two"),
        ("- {do: heal}", "fault 1: .*one of the two"),
        ("- {at: {seconds: -1}, do: heal}", "from 0 on"),
        ("- {at: {seconds: .nan}, do: heal}", "from 0 on"),
        ("- {at: {round: 1}, do: throttle, a: x, b: y, shape: {rate_mbit: -3}}", "rate_mbit=-3"),
        ("- {at: {round: 1}, do: heal}\n- {at: {seconds: 1}, do: heal}", "all of a schedule"),
        ("- {at: {round: 1}, do: join, node: x}\n- {at: {round: 2}, do: join, node: x}", "twice"),
        ("kill everybody", "not a schedule"),
        ("{", "not a schedule"),
    ],
)
def test_a_script_that_cannot_be_played_is_refused_and_the_place_named(
    tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        Schedule.read(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        Schedule.read(tmp_path / "nothing.yaml")


# ---- must a run survive? ----------------------------------------------------------------------


def judge(*faults: Fault, nodes: tuple[str, ...] = ABC) -> Verdict:
    """The verdict on that schedule."""
    return survivable(Schedule.of(*faults), nodes)


def test_one_after_another_all_but_one_may_die() -> None:
    verdict = judge(at(seconds=0).kill("a"), at(seconds=10).kill("b"))
    assert verdict == Verdict(True, "", ("c",))


def test_killed_processes_of_this_machine_are_known_to_be_dead_also_when_most_die_at_once() -> None:
    assert judge(at(seconds=0).kill("a"), at(seconds=0).kill("b")).members == ("c",)
    assert not judge(*(at(seconds=0).kill(node) for node in ABC)).survives


def test_stopped_processes_may_still_vote_and_so_most_may_not_be_stopped_at_once() -> None:
    verdict = judge(at(seconds=0).stop("a"), at(seconds=2).stop("b"))
    assert not verdict.survives
    assert verdict.reason == (
        "after at={'seconds': 2} do=stop node=b part=both: 1 of 3 members reachable; "
        "waiting for quorum"
    )
    assert judge(at(seconds=0).stop("a"), at(seconds=10).stop("c")).members == ("b",)


def test_of_two_the_oldest_goes_on_when_the_other_is_stopped_but_not_the_other_way_round() -> None:
    assert judge(at(seconds=0).stop("b"), nodes=("a", "b")).members == ("a",)
    assert not judge(at(seconds=0).stop("a"), nodes=("a", "b")).survives


def test_a_stopped_node_comes_back_as_the_youngest() -> None:
    verdict = judge(at(seconds=0).stop("a"), at(seconds=10).cont("a"))
    assert verdict.members == ("b", "c", "a")


def test_a_killed_peer_is_back_as_the_youngest() -> None:
    assert judge(at(seconds=0).kill("a", Part.PEER)).members == ("b", "c", "a")


@pytest.mark.parametrize(
    "cut", [at(seconds=0).cut("a", "b"), at(seconds=0).cut_one_way("b", "a", Cut.REFUSE)]
)
def test_two_that_lose_their_link_stay_as_long_as_others_reach_both(cut: Fault) -> None:
    assert judge(cut).members == ("a", "b", "c")
    assert judge(cut, at(seconds=10).heal("b", "a")).members == ("a", "b", "c")


def test_a_lead_that_nobody_reaches_is_left_out_by_the_others() -> None:
    cuts = at(seconds=0).cut("a", "b"), at(seconds=0).cut("c", "a")
    assert judge(*cuts).members == ("b", "c")
    assert judge(*cuts, at(seconds=10).heal("a")).members == ("b", "c", "a")


def test_when_all_links_go_nobody_has_a_quorum() -> None:
    pairs = (("a", "b"), ("b", "c"), ("a", "c"))
    verdict = judge(*(at(seconds=0).cut(*pair) for pair in pairs))
    assert not verdict.survives
    assert "waiting for quorum" in verdict.reason


def test_faults_close_together_meet_the_same_view() -> None:
    stops = [at(seconds=0).stop("d"), at(seconds=4).stop("c")]
    nodes = ("a", "b", "c", "d")
    assert judge(*stops, nodes=nodes).members == ("a", "b")
    assert not judge(*stops, at(seconds=8).stop("b"), nodes=nodes).survives
    assert judge(*stops, at(seconds=9).stop("b"), nodes=nodes).survives


def test_a_node_killed_whole_is_known_to_be_dead_on_the_same_host_only() -> None:
    both = Schedule.of(at(seconds=0).kill("a"), at(seconds=1).kill("b"))
    assert survivable(both, ABC).members == ("c",)
    apart = survivable(both, ABC, one_host=False)
    assert not apart.survives
    assert apart.reason.startswith("after at={'seconds': 1} do=kill node=b")
    told = Schedule.of(at(seconds=0).kill("a", Part.WORKER), at(seconds=1).leave("b"))
    assert survivable(told, ABC, one_host=False).members == ("c",)


def test_who_joins_counts_and_who_leaves_does_not() -> None:
    verdict = judge(at(seconds=0).leave("a"), at(seconds=10).join("d"), at(seconds=20).stop("b"))
    assert verdict == Verdict(True, "", ("c", "d"))


def test_a_slow_link_is_no_lost_link() -> None:
    assert judge(at(seconds=0).throttle("a", "b", Shape(rate_mbit=1))).members == ABC


@pytest.mark.parametrize(
    "fault", [at(round=1).kill("x"), at(round=1).cont("x"), at(round=1).join("a")]
)
def test_a_fault_of_a_node_that_is_not_there_is_refused(fault: Fault) -> None:
    with pytest.raises(ConfigError):
        judge(fault)


# ---- storms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_must_be_survived_and_keeps_to_its_bounds(seed: int) -> None:
    nodes = [f"n{i}" for i in range(1, 6)]
    schedule = storm(seed, nodes, minutes=5, every_s=7.0, most_ended=6, least_nodes=3)
    assert schedule == storm(seed, nodes, minutes=5, every_s=7.0, most_ended=6, least_nodes=3)
    assert survivable(schedule, nodes).survives
    assert len(schedule.faults) >= 30
    assert all(0 < fault.at.place < 300 for fault in schedule.faults)
    deeds = [fault.deed for fault in schedule.faults]
    assert sum(isinstance(deed, Kill | Leave) for deed in deeds) <= 6
    assert Counter(type(deed) for deed in deeds)[Stop] == sum(isinstance(d, Cont) for d in deeds)
    cuts = [(d.a, d.b) for d in deeds if isinstance(d, CutLink | CutOneWay)]
    assert Counter(cuts) == Counter((d.a, d.b) for d in deeds if isinstance(d, Heal))


def test_storms_bring_every_kind_of_fault_and_differ_by_seed() -> None:
    storms = [storm(seed, ("n1", "n2", "n3", "n4", "n5"), minutes=5) for seed in range(5)]
    assert len({s.faults for s in storms}) == 5
    kinds = {type(fault.deed) for s in storms for fault in s.faults}
    assert kinds == {Kill, Stop, Cont, Leave, Join, CutLink, CutOneWay, Throttle, Heal}


def test_a_storm_brings_only_what_it_was_asked_for() -> None:
    shape = Shape(rate_mbit=100)
    schedule = storm(3, ABC, minutes=2, weights={"throttle": 1}, shape=shape)
    throttles = [fault.deed for fault in schedule.faults]
    assert all(isinstance(deed, Throttle) for deed in throttles)
    assert sum(deed.shape == shape for deed in throttles) * 2 == len(throttles)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="earthquake"):
        storm(3, ABC, minutes=2, weights={"earthquake": 1})
    with pytest.raises(ConfigError, match="at least two"):
        storm(3, ("a",), minutes=2)
