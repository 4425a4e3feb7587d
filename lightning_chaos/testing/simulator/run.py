"""A whole run: faults for some seconds, then quiet, in which all must find together again."""

from __future__ import annotations

from lightning_chaos.testing.simulator.case import Case
from lightning_chaos.testing.simulator.faults import set_up
from lightning_chaos.testing.simulator.node import Node
from lightning_chaos.testing.simulator.outcome import Outcome, RunLost, Stuck, Violation
from lightning_chaos.testing.simulator.together import begin_together
from lightning_chaos.testing.simulator.training import Doing
from lightning_chaos.testing.simulator.world import World

SETTLE_S = 20.0
"""Longest time until all are members of one view and train, once everything works, for a timeout
of one second."""
END_S = 12.0
"""Longest time until all have ended, once somebody asks for it."""
LOOK_S = 0.1
"""How often it is looked at whether they do."""
ROUNDS = 2
"""As many as everybody must begin to be taken for training."""


def simulate(case: Case, *, story: bool = True) -> Outcome:
    """Play a case; the same case always has the same outcome.

    Args:
        case: the nodes, what happens to them, and the seed of all else.
        story: write down what happens (a third slower).

    Returns:
        The promise that was broken, if one was, or whatever error the code has.
    """
    lines: list[str] | None = [] if story else None
    world = World(case, lines)
    problem = ""
    try:
        _play(world)
    except RunLost:
        pass
    except Exception as error:
        problem = str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error}"
    return Outcome(case, problem, world.clock.done, tuple(lines or ()))


def _play(world: World) -> None:
    case = world.case
    begin(world)
    for fault in case.faults:
        set_up(world, fault)
    world.clock.run_until(case.quiet_at)
    world.clock.tell("*** quiet")
    world.heal()
    settled = True
    try:
        settle(world)
    except Stuck:
        if world.invariants.has_quorum():
            raise
        settled = False
    if case.returns:
        world.clock.tell("*** everybody comes back")
        for name in world.names:
            world.start(name)
        try:
            settle(world)
        except Stuck:
            if world.invariants.stayers_joined():
                raise
            return
    if case.ends and (settled or case.returns):
        end(world)


def begin(world: World) -> None:
    """Its nodes are one cluster, or start now, one after the other; the faults are not set up."""
    if world.case.founders:
        begin_together(world, world.names[: world.case.founders])
        return
    for i, name in enumerate(world.names):
        delay = i * world.clock.rng.uniform(0.0, 0.5)
        world.clock.after(delay, lambda name=name: world.start(name))  # type: ignore[misc]


def settle(world: World) -> None:
    """Let time pass until all who live are members of one view and train.

    Raises:
        Stuck: they do not within :data:`SETTLE_S`.
        Violation: what they hold is wrong.
        RunLost: nobody holds the state any more.
    """
    end = world.clock.now + SETTLE_S * world.case.timeout_s
    begun: dict[str, int] = {}
    while problem := _unsettled(world, begun):
        if world.clock.now >= end:
            raise Stuck(problem)
        world.clock.run_until(world.clock.now + LOOK_S)
        if world.invariants.lost():
            raise RunLost
    world.invariants.histories()


def trains(world: World) -> list[Node]:
    """All nodes that live and have not left."""
    return [n for n in world.nodes if n.worker_alive and n.worker.doing is not Doing.GONE]


def _unsettled(world: World, begun: dict[str, int]) -> str:
    """Who does not train with all others, and why; ``begun`` are the rounds since they agree."""
    if world.coming_back:
        begun.clear()
        return f"{', '.join(sorted(world.coming_back))}: not back yet"
    nodes = trains(world)
    views = [n.peer.view for n in nodes if n.member and n.peer.view is not None]
    newest = max(views, key=lambda view: view.epoch, default=None)
    for node in nodes:
        where = f"{node.uid} ({node.peer.role.value}, worker {node.worker.doing.value})"
        if newest is None or node.peer.view != newest or newest.rank(node.uid) is None:
            begun.clear()
            known = f"{newest.uids} of epoch {newest.epoch}" if newest else "any view"
            return f"{where} is no member of {known}"
    for node in nodes:
        begun.setdefault(node.uid, node.worker.begun)
    for node in nodes:
        worker = node.worker
        if worker.begun < begun[node.uid] + ROUNDS:
            return f"{node.uid} stands at round {worker.begun}, worker {worker.doing.value}"
    return "" if nodes else "nobody trains"


def end(world: World) -> None:
    """Ask the run to stop: it ends everywhere after the same round.

    Raises:
        Violation: it does not.
    """
    nodes = trains(world)
    world.stop_asked = True
    bound = world.clock.now + END_S
    while any(n.alive for n in nodes) and world.clock.now < bound:
        world.clock.run_until(world.clock.now + LOOK_S)
    rounds = {n.worker.begun for n in nodes}
    late = [n.uid for n in nodes if n.alive]
    if late or len(rounds) > 1:
        raise Violation(f"{late} have not ended, rounds {rounds}")
    if any(not n.worker.all_done for n in nodes):
        raise Violation("somebody was not told that all are done")
