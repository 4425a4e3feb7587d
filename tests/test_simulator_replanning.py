"""The lead plans on measured links: in the simulator, with rates that the workers are given."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable

import pytest

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.planning.values import ReducePlan
from lightning_chaos.protocol import local, replanning
from lightning_chaos.protocol.messages import Message, Prepare
from lightning_chaos.protocol.readings import Reading, Trust
from lightning_chaos.protocol.values import View
from lightning_chaos.testing.simulator import Case, Fault, draw
from lightning_chaos.testing.simulator.faults import set_up
from lightning_chaos.testing.simulator.node import Node
from lightning_chaos.testing.simulator.outcome import RunLost, Stuck
from lightning_chaos.testing.simulator.run import begin, settle
from lightning_chaos.testing.simulator.world import World

VECTOR = 10_000_000
FAST, SLOW = 25e6, 2.5e6
Rates = Callable[[World, str, str], float | Reading]


def cluster(names: str, rates: Rates, **case: object) -> World:
    """A cluster that trains, whose workers measure such rates (bytes/s) every second."""
    world = World(Case(1, names, founders=len(names), pace=20.0, **case))  # type: ignore[arg-type]
    begin(world)
    measure(world, rates)
    return world


def measure(world: World, rates: Rates, every_s: float = 1.0) -> None:
    for node in [n for n in world.nodes if n.worker_alive]:
        view = node.worker.view
        if view is not None and node.worker.active:
            others = (m for m in view.members if m.uid != node.uid)
            told = {m.uid: reading(rates(world, m.node, node.name)) for m in others}
            node.worker.say(local.Measured(told, VECTOR))
    world.clock.after(every_s, lambda: measure(world, rates, every_s))


def reading(rate: float | Reading) -> Reading:
    return rate if isinstance(rate, Reading) else Reading(rate)


def view_of(world: World, name: str = "a") -> View:
    node = world.nodes.newest(name)
    assert node is not None
    assert node.peer.view is not None
    return node.peer.view


def loads(plan: ReducePlan) -> Counter[tuple[int, int]]:
    """Share of a vector that each link carries, each way, in thousandths."""
    carried: Counter[tuple[int, int]] = Counter()
    for tree, share in zip(plan.trees, plan.shares, strict=True):
        for a, b in tree.links(plan.members):
            carried[min(a, b), max(a, b)] += 1000 * share // sum(plan.shares)
    return carried


def one_slow(world: World, a: str, b: str) -> float:
    return SLOW if {a, b} == {"c", "d"} else FAST


def equal(world: World, a: str, b: str) -> float:
    return FAST


def test_the_plans_shares_follow_the_links() -> None:
    world = cluster("abcd", one_slow)
    assert view_of(world).plan == mesh_plan(view_of(world).uids)
    mesh = loads(view_of(world).plan)
    world.until(lambda: view_of(world).epoch > 1, "a better plan")
    world.until(lambda: all(view_of(world, n) == view_of(world) for n in "abcd"), "one view")
    view = view_of(world)
    settle(world)
    assert view.uids == tuple(node.uid for node in world.nodes)
    slow, fast = (2, 3), (0, 1)
    assert loads(view.plan)[slow] < mesh[slow]
    assert loads(view.plan)[fast] > mesh[fast]


def test_what_has_proved_better_is_proposed_once() -> None:
    world = cluster("abcd", one_slow)
    world.clock.run_until(60.0)
    assert view_of(world).epoch == 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.10, 0.15])
def test_noise_never_changes_the_plan(seed: int, noise: float) -> None:
    rng = random.Random(seed)
    world = cluster("abcde", lambda *_: FAST * rng.uniform(1 - noise, 1 + noise))
    world.clock.run_until(60.0)
    assert view_of(world).epoch == 1


@pytest.mark.parametrize("seed", range(4))
def test_trains_that_disagree_by_half_never_change_the_plan(seed: int) -> None:
    """Each link is told by one of them for fifteen seconds."""

    def train(world: World, a: str, b: str) -> Reading:
        rng = random.Random(f"{seed} {a} {b} {(world.clock.now + 5 * ord(a)) // 15}")
        return Reading(FAST * rng.uniform(0.67, 1.5), Trust.TRAIN)

    world = cluster("abcde", train)
    world.clock.run_until(90.0)
    assert view_of(world).epoch == 1


def test_a_lower_bound_takes_nothing_from_a_link() -> None:
    def shown_little(world: World, a: str, b: str) -> Reading:
        slow = one_slow(world, a, b) == SLOW
        return Reading(SLOW, Trust.AT_LEAST) if slow else Reading(FAST)

    world = cluster("abcd", shown_little)
    world.clock.run_until(30.0)
    assert view_of(world).epoch == 1


def test_a_link_of_which_nothing_was_heard_for_long_is_tried_again() -> None:
    began: list[float] = []

    def forgotten(world: World, a: str, b: str) -> Reading:
        slow = one_slow(world, a, b) == SLOW
        old = slow and bool(began)
        return Reading(SLOW if slow else FAST, Trust.MEASURED, 2000.0 if old else 0.0)

    world = cluster("abcd", forgotten)
    world.until(lambda: view_of(world).epoch == 2, "a better plan")
    spared = loads(view_of(world).plan)[2, 3]
    began.append(world.clock.now)
    world.until(lambda: view_of(world).epoch == 3, "a plan that tries it again", bound_s=80.0)
    assert loads(view_of(world).plan)[2, 3] > spared


@pytest.mark.parametrize("seed", range(4))
def test_a_link_that_loses_half_of_its_rate_changes_it_once(seed: int) -> None:
    rng = random.Random(seed)

    def halved(world: World, a: str, b: str) -> float:
        lost = world.clock.now > 20 and {a, b} == {"a", "b"}
        return (FAST / 2 if lost else FAST) * rng.uniform(0.85, 1.15)

    world = cluster("abcd", halved)
    world.clock.run_until(20.0)
    assert view_of(world).epoch == 1
    world.clock.run_until(90.0)
    assert view_of(world).epoch == 2


def test_without_every_figure_links_count_as_equal() -> None:
    def some(world: World, a: str, b: str) -> float:
        return SLOW if "d" in (a, b) else float("nan")

    world = cluster("abcd", some)
    world.clock.run_until(30.0)
    assert view_of(world).epoch == 1


def test_a_lost_link_moves_only_the_trees_that_used_it() -> None:
    world = cluster("abcd", one_slow)
    world.until(lambda: view_of(world).epoch == 2, "a better plan")
    plan = view_of(world).plan
    set_up(world, Fault(world.clock.now + 1, "cut", "a", "b", seconds=3.0))
    world.until(lambda: bool(view_of(world).missing), "the link is given up")
    after = view_of(world).plan
    assert after.shares == plan.shares
    kept = [t for t in plan.trees if (0, 1) not in {tuple(sorted(e)) for e in t.links(4)}]
    assert kept
    assert set(kept) <= set(after.trees)
    assert after != plan


def test_a_member_that_goes_costs_the_plan_not_the_figures() -> None:
    world = cluster("abcde", one_slow)
    world.until(lambda: view_of(world).epoch == 2, "a better plan")
    set_up(world, Fault(world.clock.now + 1, "kill", "e"))
    world.until(lambda: len(view_of(world).uids) == 4, "e is left out")
    assert view_of(world).plan == mesh_plan(view_of(world).uids)
    world.until(lambda: view_of(world).epoch == 4, "a better plan again")
    assert view_of(world).plan != mesh_plan(view_of(world).uids)


def test_the_next_lead_plans_on() -> None:
    def later(world: World, a: str, b: str) -> float:
        return one_slow(world, a, b) if world.clock.now > 12 else FAST

    world = cluster("abcd", later)
    set_up(world, Fault(10.0, "kill", "a"))
    world.until(lambda: len(view_of(world, "b").uids) == 3, "a is left out")
    world.until(lambda: view_of(world, "b").epoch == 3, "a better plan")


def changing(world: World, a: str, b: str) -> float:
    return random.Random(f"{min(a, b)} {max(a, b)} {world.clock.now // 2}").choice([FAST, SLOW])


def changes_of_plan(case: Case) -> int:
    """Play it, with rates that never stay; how many better plans were proposed."""
    world, proposed = World(case), set()

    def tap(_: Node, message: Message) -> None:
        if isinstance(message, Prepare) and "better plan" in message.proposal.reason:
            proposed.add(message.proposal.ballot)

    world.control.taps.append(tap)
    with contextlib.suppress(RunLost):
        begin(world)
        measure(world, changing, every_s=0.1)
        for fault in case.faults:
            set_up(world, fault)
        world.clock.run_until(case.quiet_at)
        world.heal()
        for name in world.names:
            world.start(name)
        try:
            settle(world)
        except Stuck:
            if world.invariants.has_quorum():
                raise
    return len(proposed)


def test_plans_that_change_amid_faults_break_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replanning, "CALM", 0)
    monkeypatch.setattr(replanning, "REST", 0)
    changes = [changes_of_plan(draw(seed)) for seed in range(40)]
    assert sum(map(bool, changes)) >= 10
