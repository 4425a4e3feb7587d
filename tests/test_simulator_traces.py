"""The traces that broke earlier drafts of the protocol, steered by hand in the simulator.

Each first brings about the situation that its name tells, then lets everything work again: all
must find together, and the invariants are checked after every step on the way.
"""

from __future__ import annotations

import pytest
from simulator_stage import Stage

from lightning_chaos.testing.simulator import Case, Fault, draw, simulate
from lightning_chaos.testing.simulator.faults import set_up
from lightning_chaos.testing.simulator.node import Node
from lightning_chaos.testing.simulator.outcome import RunLost
from lightning_chaos.testing.simulator.run import begin, settle
from lightning_chaos.testing.simulator.world import World


@pytest.mark.parametrize(
    ("reached", "goes_on"), [(1, "those who lack it"), (2, "those who have it")]
)
def test_a_commit_that_reached_only_some_before_a_split_binds_both_sides(
    reached: int, goes_on: str
) -> None:
    found = 0
    for seed in range(20):
        stage = Stage("abcde", seed=seed)
        before = stage.epoch("a")

        def have(stage: Stage = stage, before: int = before) -> str:
            return "".join(name for name in "abcd" if stage.epoch(name) > before)

        stage.strike("kill", "e")
        stage.until(lambda: len(have()) >= reached, "the COMMIT of a view without e reaches them")
        if len(have()) == reached:
            found += 1
            sides = {
                "those who have it": have(),
                "those who lack it": "".join(name for name in "abcd" if name not in have()),
            }
            split_for_good(stage, sides, goes_on)
        if found == 3:
            return
    pytest.fail(f"only {found} seeds are like that")


def split_for_good(stage: Stage, sides: dict[str, str], goes_on: str) -> None:
    """No path between them from now on: one goes on, and both know the same once it is over."""
    committed = max(stage.epoch(name) for name in "abcd")
    stage.cut(*sides.values())
    stage.run(8.0)
    stood = {who: stage.rounds(side) for who, side in sides.items()}
    stage.run(3.0)
    assert [who for who, side in sides.items() if stage.rounds(side) != stood[who]] == [goes_on]
    # Of {a,b,c,d,e} and of {a,b,c,d}, whatever b, c and d know of it, they are more than half.
    went_above = all(stage.epoch(name) > committed for name in sides["those who lack it"])
    assert went_above == (goes_on == "those who lack it")
    stage.heal()


@pytest.mark.parametrize("seed", range(4))
def test_two_proposals_acked_by_overlapping_sets_leave_one_view(seed: int) -> None:
    stage = Stage("abcde", seed=seed)
    lead, second, both, other, dead = stage.by_age()
    stage.strike("kill", dead)
    stage.until(lambda: ("Ack", both, lead) in stage.sent, "one agrees to what the lead proposes")
    stage.cut(lead, second + both + other)
    stage.until(lambda: ("Ack", both, second) in stage.sent, "it agrees to another's proposal too")
    acked = stage.node(both).peer._standing.acceptor.acked
    assert {p.ballot.proposer[0] for p in acked} >= {lead, second}
    stage.until(lambda: len(stage.world.invariants.newest().uids) == 3, "three go on")
    stage.heal()


def stop_the_lead_while_the_others_go_on_and_die(stage: Stage) -> Node:
    """The lead's peer and worker are stopped until long after the last of the others is dead."""
    lead = stage.node("a")
    stage.strike("pause_peer", "a", seconds=12.0)
    stage.strike("hang_worker", "a", seconds=4.0)
    stage.until(lambda: len(stage.world.invariants.newest().uids) == 2, "the others go on alone")
    stage.run(2.0)
    stage.strike("kill", "c")
    stage.run(1.0)
    stage.strike("kill", "b")
    stage.until(lambda: stage.world.clock.now > lead.paused_until, "the lead wakes")
    return lead


@pytest.mark.parametrize("same_machine", [False, True])
def test_a_stopped_lead_that_wakes_after_its_cluster_shrank_and_was_killed_gives_up(
    same_machine: bool,
) -> None:
    """What the others said while it was stopped waits for it: it knows that its state is old."""
    stage = Stage("abc", same_machine=same_machine)
    lead = stop_the_lead_while_the_others_go_on_and_die(stage)
    permitted = lead.peer.permits.granted
    with pytest.raises(RunLost):
        stage.run(10.0)
    assert lead.worker.apart == "a: silent for more than 1 s"
    assert lead.worker.begun <= permitted


def test_a_stopped_lead_that_wakes_and_hears_nothing_waits() -> None:
    """It cannot know whether those who do not answer have gone on without it: they had."""
    stage = Stage("abc")
    stage.strike("isolate", "a")
    lead = stop_the_lead_while_the_others_go_on_and_die(stage)
    permitted = lead.peer.permits.granted
    stage.run(30.0)
    assert lead.member
    assert lead.worker.begun <= permitted
    assert stage.told("a/1 : waiting: 1 of 3 members reachable; waiting for quorum")


@pytest.mark.parametrize("seed", range(6))
def test_a_worker_that_may_enter_round_t_makes_its_peer_refuse_t(seed: int) -> None:
    stage = Stage("abc", seed=seed)
    lead = stage.node("a")
    stage.strike("leave", "c")
    stage.until(lambda: ("Prepare", "a", "b") in stage.sent, "the lead names a round")
    named = lead.peer._standing.acceptor.blocked
    assert named is not None
    stage.strike("stall", "a", "b", seconds=0.4)
    stage.until(lambda: ("Ack", "b", "a") in stage.sent, "b agrees to some round")
    agreed = stage.node("b").peer._standing.acceptor.blocked
    assert agreed is not None
    assert stage.node("b").worker.begun < agreed
    if agreed > named:
        assert stage.told("is permitted already")
    stage.until(lambda: stage.world.live("c") is None, "c has left")
    settle(stage.world)


def passed_on(stage: Stage) -> int:
    """So many results others than a have sent."""
    return sum(kind == "RESULT" and sender != "a" for kind, sender, _ in stage.sent)


def test_a_holder_of_results_that_dies_after_the_commit_is_replaced() -> None:
    """The lead's decision names who passes results on; that one dies before it can."""
    found = 0
    for seed in range(60):
        stage = Stage("abcd", seed=seed)
        stage.strike("slow", "a", seconds=20.0)
        stage.until(lambda s=stage: passed_on(s) > 5, "others than a have results")  # type: ignore[misc]
        stage.strike("kill", "d")
        before = stage.epoch("a")
        stage.until(lambda s=stage, e=before: s.epoch("a") > e, "the lead commits")  # type: ignore[misc]
        decision = stage.world.invariants.decisions[stage.epoch("a")]
        assert decision is not None
        holders = {*decision.sources[:1], *decision.held.values()}  # every link is there
        holder = next((uid[0] for uid in sorted(holders) if uid[0] != "a"), None)
        if holder is None:
            continue
        found += 1
        stage.strike("kill", holder)
        stage.heal()
    assert found > 3


@pytest.mark.parametrize("seed", range(20, 30))
def test_a_newcomer_does_not_keep_what_only_a_dead_donor_had_finished(seed: int) -> None:
    """The donor that it pulled from dies before the others have its results: they redo them."""
    slow = Fault(0.1, "slow", "a", seconds=30.0)
    kill = Fault(0.2, "kill", "a", "b", after="Pull", count=1 + seed % 3)
    outcome = simulate(Case(seed, "abcd", (slow, kill), same_machine=seed % 2 == 0))
    assert not outcome.problem, str(outcome)


@pytest.mark.parametrize("seed", range(5))
def test_who_was_cut_off_does_not_go_on_when_the_lead_that_went_on_comes_back(seed: int) -> None:
    """The lead went on with a newcomer, died, and speaks anew: it votes no more, but it did."""
    stage = Stage("abc", seed=seed)
    lead, second, third = stage.by_age()
    stage.strike("kill", third)
    stage.until(lambda: len(stage.world.invariants.newest().uids) == 2, "two go on")
    stage.run(0.5)
    stage.cut(second, lead + third)
    stage.until(lambda: stage.by_age() == [lead], "the lead goes on alone")
    stage.strike("restart", third)
    stage.until(lambda: stage.by_age() == [lead, third], "a newcomer joins the lead")
    stage.run(1.0)
    stage.strike("kill", lead)
    stage.run(0.1)
    stage.heal()


@pytest.mark.parametrize("seed", range(4))
def test_a_frame_of_an_epoch_not_yet_installed_waits_for_the_commit(seed: int) -> None:
    outcome = next(
        o
        for o in (simulate(Case(s, "abc", (Fault(0.1, "slow", "a"),))) for s in range(seed, 400, 4))
        if any("says SawEpoch" in line for line in o.story)
    )
    assert not outcome.problem, str(outcome)


@pytest.mark.parametrize("seed", range(125, 131))
def test_a_worker_frozen_for_another_s_change_goes_on_when_the_lead_wakes(seed: int) -> None:
    """The second tries while the lead sleeps; the lead's change holds all the same.

    Whoever had agreed to the second's is still frozen for it when all is decided, and asks.
    """
    faults = (
        Fault(0.6, "pause_peer", "a", "c", seconds=1.5, after="Prepare"),
        Fault(0.84, "kill", "c", "a"),
    )
    world = World(Case(seed, "abcd", faults, same_machine=True, founders=4))
    begin(world)
    for fault in faults:
        set_up(world, fault)
    world.until(lambda: len(world.invariants.newest().uids) == 3, "three go on")
    woke = world.clock.now
    settle(world)
    assert world.clock.now - woke < 2.0


@pytest.mark.parametrize("seed", range(1, 7))
def test_a_proposal_that_a_minority_agreed_to_holds_nobody_up_once_its_proposer_is_dead(
    seed: int,
) -> None:
    """b and e agreed to go on without a and d, which is no quorum, and b died.

    Then the others meet again.  They once proposed anew at the speed of the network: answers that
    overtook each other told now of one, now of another older proposal.
    """
    cuts = [
        Fault(3.8, "cut", *ends, seconds=s) for ends, s in (("ab", 3.2), ("ad", 1), ("ae", 3.1))
    ]
    mute = Fault(4.1, "mute", "a", "d", seconds=3.3)
    stalls = [Fault(4.1, "stall", name, "d", seconds=3.5) for name in "be"]
    faults = (*cuts, mute, *stalls, Fault(6.3, "kill", "b"))
    outcome = simulate(Case(seed, "abde", faults))
    assert not outcome.problem, str(outcome)
    assert sum("Prepare" in line for line in outcome.story) < 100


def test_a_worker_s_answer_that_comes_after_the_view_that_let_it_go_freezes_nobody() -> None:
    """Two COMMITs reach c at once, and its worker answers to the freeze between them."""
    faults = (
        Fault(0.1, "isolate", "a", "e", after="Commit"),
        Fault(0.31, "pause_peer", "d", "e", seconds=0.09, after="Commit"),
        Fault(0.32, "leave", "a"),
        Fault(0.4, "blip_data", "b", "e"),
    )
    for seed in range(2080, 2100):
        outcome = simulate(Case(seed, "abcde", faults, founders=5, quiet_at=0.8))
        assert not outcome.problem, str(outcome)


@pytest.mark.parametrize("seed", [22, 29, 94, 60948])
def test_a_link_lost_just_before_its_leaver_s_view_costs_nobody_a_seat(seed: int) -> None:
    """Nobody mended it then or spoke of it, and the last rounds with the leaver waited for it."""
    leave, cut = Fault(0.42, "leave", "e"), Fault(0.67, "cut_data", "e", "a")
    far = (("a", "c"), ("a", "d"))
    case = Case(seed, "abcde", (leave, cut), founders=5, unlinked=far, quiet_at=0.8)
    outcome = simulate(case)
    assert not outcome.problem, str(outcome)


def test_a_case_always_has_the_same_outcome() -> None:
    case = draw(11)
    assert simulate(case) == simulate(case)
