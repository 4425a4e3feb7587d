"""Runs in virtual time with random faults: whatever happens, the promises of design §4 hold.

A failing seed prints itself and the fewest of its faults that still break a promise.  Play one
again with ``SEED=17 pytest tests/test_protocol_random.py``.
"""

from __future__ import annotations

import os
import time
from functools import partial

import pytest
from protocol_checks import RunLost, Violation
from protocol_faults import FAULTY_S, Case, Fault, lie_in_wait, strike
from protocol_network import Node
from protocol_world import World

QUIET_S = 16.0


def play(case: Case, story: list[str]) -> World:
    """Raises Violation, or whatever error the code has."""
    world = World(case.seed, case.names, same_machine=case.same_machine, story=story)
    for i, name in enumerate(case.names):
        world.after(i * world.uniform(0.0, 0.5), partial(world.start, name))
    for fault in case.faults:
        work = strike if not fault.after else lie_in_wait
        world.after(fault.at, partial(work, world, fault))
    try:
        world.run_until(FAULTY_S)
        world.path.clear()
        world.tell("*** quiet")
        world.run_until(FAULTY_S + QUIET_S)
        world.checks.histories()
        if world.checks.lost():
            return world
        if world.checks.has_quorum():
            check_progress(world)
        world.tell("*** everybody comes back")
        for name in case.names:
            if world.live(name) is None:
                world.start(name)
        world.run_until(world.now + QUIET_S)
        world.checks.histories()
        if not world.checks.lost():
            check_progress(world)
            if case.ends:
                check_end(world)
    except RunLost:
        pass
    return world


def trains(world: World) -> list[Node]:
    return [n for n in world.nodes.values() if n.worker_alive and n.worker.doing != "gone"]


def check_progress(world: World) -> None:
    """All who live are members of one view and get on."""
    nodes = trains(world)
    begun = {n.uid: n.worker.begun for n in nodes}
    world.run_until(world.now + 4.0)
    for node in trains(world):
        if node.uid not in begun:
            continue
        view = world.checks.newest()
        where = f"{node.uid} ({node.peer.role.value}, worker {node.worker.doing})"
        if node.peer.view != view:
            raise Violation(f"{where} does not know the view {view.uids} of epoch {view.epoch}")
        if view.rank(node.uid) is None:
            raise Violation(f"{where} is no member of {view.uids}")
        if node.worker.begun <= begun[node.uid] + 2:
            raise Violation(f"{where} stands at round {node.worker.begun}")
    if not world.checks.newest().uids:
        raise Violation("nobody trains")


def check_end(world: World) -> None:
    """A run that is told to stop ends everywhere after the same round."""
    nodes = trains(world)
    world.stop_asked = True
    world.run_until(world.now + 12.0)
    rounds = {n.worker.begun for n in nodes}
    late = [n.uid for n in nodes if n.worker_alive or n.peer_alive]
    if late or len(rounds) > 1:
        raise Violation(f"{late} have not ended, rounds {rounds}")
    if any(not n.worker.all_done for n in nodes):
        raise Violation("somebody was not told that all are done")


def problem_of(case: Case) -> tuple[str, list[str]]:
    """What goes wrong in a run, '' if nothing, and its story."""
    story: list[str] = []
    try:
        play(case, story)
    except Exception as error:
        return f"{type(error).__name__}: {error}", story
    return "", story


def shrink(case: Case) -> Case:
    """The same with as few faults as still break something."""
    again = True
    while again:
        again = False
        for fault in case.faults:
            fewer = Case(
                case.seed,
                case.names,
                case.same_machine,
                tuple(f for f in case.faults if f is not fault),
                case.ends,
            )
            if problem_of(fewer)[0]:
                case, again = fewer, True
                break
    return case


def test_random_faults_break_no_promise() -> None:
    first = os.environ.get("SEED")
    begun = time.monotonic()
    seed = int(first) if first else 0
    while time.monotonic() - begun < float(os.environ.get("CHAOS_RANDOM_S", "20")):
        problem, _ = problem_of(Case.of(seed))
        if problem:
            case = shrink(Case.of(seed))
            problem, story = problem_of(case)
            print(*story, sep="\n")
            faults = "; ".join(map(str, case.faults))
            where = f"{case.names}, one machine: {case.same_machine}"
            pytest.fail(f"seed {seed} ({where}; {faults}): {problem}", pytrace=False)
        if first:
            return
        seed += 1
    assert seed > 10


@pytest.mark.parametrize("seed", range(20, 30))
def test_a_newcomer_does_not_keep_what_only_a_dead_donor_had_finished(seed: int) -> None:
    """The donor that it pulled from dies before the others have its results: they redo them."""
    slow = Fault(0.1, "slow", "a", "b", 30.0)
    kill = Fault(0.2, "kill", "a", "b", 1.0, after="Pull", count=1 + seed % 3)
    problem, story = problem_of(Case(seed, "abcd", seed % 2 == 0, (slow, kill), ends=False))
    assert not problem, "\n".join([*story, problem])
