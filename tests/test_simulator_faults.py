"""Faults and worlds of the simulator do what their names say, and the run survives them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lightning_chaos.testing.simulator import Case, Fault, simulate
from lightning_chaos.testing.simulator.faults import set_up
from lightning_chaos.testing.simulator.run import begin, settle
from lightning_chaos.testing.simulator.world import World

LONG = 30.0


def world_of(names: str | int, *faults: Fault, unlinked: Sequence[tuple[str, str]] = ()) -> World:
    """A cluster from the begin, with these faults."""
    founders = names if isinstance(names, int) else len(names)
    world = World(Case(1, names, tuple(faults), founders=founders, unlinked=tuple(unlinked)))
    begin(world)
    for fault in faults:
        set_up(world, fault)
    return world


def missing(world: World) -> list[str]:
    """Pairs without a link in the newest view."""
    pairs = world.invariants.newest().missing
    return ["-".join(world.nodes[uid].name for uid in pair) for pair in pairs]


def members(world: World) -> str:
    return "".join(m.node for m in world.invariants.newest().members)


def test_a_cluster_from_the_begin_trains() -> None:
    world = world_of(20)
    settle(world)
    assert world.invariants.newest().epoch == 1
    assert len(world.invariants.newest().uids) == 20


def test_nodes_that_never_have_a_link_are_members_of_one_view() -> None:
    world = world_of("abcd", unlinked=[("a", "c"), ("b", "d")])
    settle(world)
    assert (members(world), missing(world)) == ("abcd", ["a-c", "b-d"])


def test_a_newcomer_needs_no_link_to_everybody() -> None:
    world = World(Case(1, "abcd", unlinked=(("a", "d"),)))
    begin(world)
    world.until(lambda: all(map(world.live, "abcd")), "all are started")
    settle(world)
    assert sorted(members(world)) == list("abcd")
    assert missing(world) == ["a-d"]


@pytest.mark.parametrize("kind", ["cut", "stall", "mute"])
def test_a_lost_link_costs_no_seat(kind: str) -> None:
    world = world_of("abcd", Fault(0.5, kind, "b", "c", seconds=LONG))
    world.until(lambda: missing(world) == ["b-c"], "the link is given up")
    settle(world)
    assert members(world) == "abcd"
    world.heal()
    world.until(lambda: missing(world) == [], "the link is taken back")


def test_a_relay_dies_and_a_link_is_lost_in_one_moment() -> None:
    at_once = Fault(2.0, "kill", "b"), Fault(2.0, "cut", "a", "d", seconds=LONG)
    world = world_of("abcde", Fault(0.5, "cut", "a", "c", seconds=LONG), *at_once)
    world.until(lambda: members(world) == "acde", "b is left out")
    settle(world)
    assert missing(world) == ["a-c", "a-d"]


def test_a_path_that_is_mute_carries_the_other_way() -> None:
    world = world_of("ab", Fault(0.5, "mute", "a", "b", seconds=LONG))
    world.clock.run_until(0.1)
    a, b = world.nodes
    world.until(lambda: b.peer._standing.evidence.silent(a.uid), "b hears nothing of a")
    assert not a.peer._standing.evidence.silent(b.uid)


def test_over_two_connections_messages_come_twice() -> None:
    faults = Fault(0.1, "double", "a", "b", seconds=LONG), Fault(0.5, "leave", "c")
    outcomes = [simulate(Case(seed, "abc", faults, founders=3)) for seed in range(5)]
    assert not any(outcome.problem for outcome in outcomes)
    told = [[line[8:] for line in o.story if " > " in line and "Commit" in line] for o in outcomes]
    assert any(len(set(lines)) < len(lines) for lines in told)


def test_clocks_that_differ_change_nothing() -> None:
    outcome = simulate(Case(3, "abc", (Fault(4.0, "kill", "a"),), skew=0.1))
    assert outcome.problem == ""


def test_a_link_that_nobody_wanted_for_a_while_is_dialled_when_a_view_wants_it() -> None:
    """A learner loses all links, and is taken back after a member has died."""
    lost = tuple(
        Fault(1.596, "cut", "c", other, seconds=s)
        for other, s in (("a", 2.16), ("b", 2.0), ("d", 2.0))
    )
    kill = Fault(3.498, "kill", "a", after="Ack")
    outcome = simulate(Case(678, "abcd", (*lost, kill), same_machine=True))
    assert not outcome.problem, outcome.problem
    assert not any("says Late" in line for line in outcome.story)
