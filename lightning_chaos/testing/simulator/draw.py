"""Random cases: a seed decides the nodes and what happens to them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

from lightning_chaos.testing.simulator.case import FAULTY_S, Case, Fault

NODES = "abcde"

COMMON = {
    "kill": 3,
    "kill_peer": 2,
    "kill_worker": 2,
    "restart": 4,
    "cut": 3,
    "stall": 2,
    "mute": 2,
    "blip": 4,
    "blip_data": 2,
    "double": 2,
    "pause_peer": 2,
    "hang_worker": 2,
    "leave": 2,
    "isolate": 3,
    "black_hole": 2,
    "deafen": 1,
    "slow": 1,
    "drag": 2,
    "cut_data": 2,
    "stall_data": 1,
    "mute_data": 1,
    "isolate_data": 1,
    "deafen_data": 1,
}
"""Faults of a mixed case, and how often each is drawn."""

STORM = (
    "cut",
    "stall",
    "mute",
    "blip",
    "blip_data",
    "double",
    "isolate",
    "black_hole",
    "pause_peer",
    "hang_worker",
    "drag",
    "cut_data",
    "mute_data",
    "isolate_data",
)
LINKS = ("cut", "cut", "mute", "stall", "flap", "blip", "double", "cut_data", "mute_data")
"""What happens to one link."""
BETWEEN_MACHINES = (
    *("cut", "flap", "stall", "mute", "isolate", "black_hole", "deafen"),
    *("cut_data", "stall_data", "mute_data", "isolate_data", "deafen_data"),
)
"""What does not happen between processes of one machine."""
CALLS = ("kill", "leave", "leave", "blip_data", "hang_worker", "kill_worker", "restart")
"""What calls for a change of the view."""
HINDRANCES = (
    "pause_peer",
    "pause_peer",
    "isolate",
    "black_hole",
    "deafen",
    "stall",
    "mute",
    "cut",
    "kill_peer",
)

MESSAGES = (
    "Prepare",
    "Ack",
    "Commit",
    "Nack",
    "ViewNews",
    "JoinRequest",
    "JoinReady",
    "LeaveRequest",
    "FlushRequest",
    "Unreachable",
    "LastWord",
    "AskCommit",
    "Carry",
    "Pull",
    "CONTRIBUTION",
    "RESULT",
)
"""What faults lie in wait for: messages, pulls, and frames."""


@dataclasses.dataclass(frozen=True)
class _Dice:
    """What the faults of a case are drawn with."""

    rng: random.Random
    names: Sequence[str]
    same_machine: bool
    first_s: float
    """No fault strikes before this."""
    middle_s: float
    """About which half of them strike."""
    last_s: float
    haste: float = 1.0
    """So many times as long as usual what lasts lasts."""

    def fault(self, kinds: Sequence[str], lasts: Sequence[float], waiting: float = 0.0) -> Fault:
        """One of these kinds; with a chance of ``waiting`` it waits for a message."""
        rng = self.rng
        kinds = [k for k in kinds if not (self.same_machine and k in BETWEEN_MACHINES)] or ["blip"]
        a, b = rng.sample(self.names, 2)
        after = rng.choice(MESSAGES) if rng.random() < waiting else ""
        count = rng.randint(1, 6) if after else 1
        seconds = round(rng.choice(lasts) * self.haste, 2)
        return Fault(self.when(), rng.choice(kinds), a, b, seconds, after, count)

    def when(self) -> float:
        """A time at which something strikes, virtual seconds."""
        rng = self.rng
        even = rng.random() < 0.5
        at = rng.uniform(self.first_s, self.last_s) if even else rng.gauss(self.middle_s, 0.3)
        return round(max(at, 0.1), 2)


Make = Callable[[_Dice], list[Fault]]


def draw(seed: int) -> Case:
    """The case of that seed: up to five nodes find each other, and faults strike for a while."""
    rng = random.Random(f"case {seed}")
    names = NODES[: rng.choice((2, 3, 3, 4, 5))]
    same_machine = rng.random() < 0.3
    make: Make = rng.choice(
        (_mixed, _mixed, _storm, _duel, _duel, _duel, _sluggish, _links, _at_once)
    )
    faults = _sorted(make(_Dice(rng, names, same_machine, 0.3, 4.0, FAULTY_S)))
    ends = rng.random() < 0.3
    skew = rng.choice((0.0, 0.0, 0.02, 0.1))
    apart = () if same_machine or rng.random() < 0.8 else _unlinked(rng, names)
    return Case(seed, names, faults, same_machine, ends, unlinked=apart, skew=skew)


def draw_short(seed: int) -> Case:
    """Five nodes, of which most begin as one cluster, and one to four faults at once."""
    rng = random.Random(f"short {seed}")
    same_machine = rng.random() < 0.2
    founders = rng.choice((3, 4, 5, 5, 5, 5))
    makes: tuple[Make, ...] = (_few, _few, _duel, _duel, _at_once, _links)
    faults = rng.choice(makes)(_Dice(rng, NODES, same_machine, 0.1, 0.4, 0.7, haste=0.3))
    return Case(
        seed,
        NODES,
        _sorted(faults[:4]),
        same_machine,
        ends=rng.random() < 0.06,
        founders=founders,
        unlinked=()
        if same_machine or founders < 5 or rng.random() < 0.85
        else _unlinked(rng, NODES)[:2],
        skew=rng.choice((0.0, 0.0, 0.0, 0.1)),
        quiet_at=0.8,
        returns=False,
    )


def draw_large(seed: int, nodes: int = 50) -> Case:
    """Many nodes, of which most begin as one cluster; a few faults, and some who join.

    Args:
        seed: of all chance.
        nodes: how many there are.
    """
    rng = random.Random(f"large {seed}")
    timeout_s = max(1.0, nodes / 100)  # heartbeats are as many as pairs
    founders = nodes - rng.randint(0, 3)
    case = Case(seed, nodes, founders=founders, quiet_at=4.0, pace=3.0, timeout_s=timeout_s)
    dice = _Dice(rng, case.nodes, False, 0.3, 1.5, 3.5, haste=0.5)
    faults = [*_few(dice), *rng.choice((_links, _at_once, _duel))(dice)]
    faults += [Fault(dice.when(), "restart", name) for name in case.nodes[case.founders :]]
    return dataclasses.replace(case, faults=_sorted(faults), skew=rng.choice((0.0, 0.05)))


def _sorted(faults: list[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _few(dice: _Dice) -> list[Fault]:
    """One or two of anything."""
    kinds = [kind for kind, times in COMMON.items() for _ in range(times)]
    return [dice.fault(kinds, (0.2, 0.7), 0.4) for _ in range(dice.rng.randint(1, 3))]


def _mixed(dice: _Dice) -> list[Fault]:
    """A few of some kinds."""
    some = {*dice.rng.sample(sorted(COMMON), dice.rng.randint(2, 8)), "kill"}
    kinds = [kind for kind, times in COMMON.items() if kind in some for _ in range(times)]
    count = dice.rng.choice((1, 2, 3, 5, 8))
    return [dice.fault(kinds, (0.2, 0.7, 3.0), 0.4) for _ in range(count)]


def _storm(dice: _Dice) -> list[Fault]:
    """The network fails here and there, all the time, and one node goes."""
    kinds = [*dice.rng.sample(STORM, dice.rng.randint(2, len(STORM))), "blip"]
    going = dice.rng.choice(("kill", "kill_peer", "kill_worker", "leave"))
    count = dice.rng.randint(8, 20)
    faults = [dice.fault(kinds, (0.1, 0.3, 0.7, 1.5), 0.4) for _ in range(count)]
    return [*faults, dice.fault([going], (0.1,))]


def _duel(dice: _Dice) -> list[Fault]:
    """Whoever changes the view is held up in the middle, so that another one takes over."""
    rng = dice.rng
    faults = [dice.fault(CALLS, (0.1, 0.5)) for _ in range(rng.randint(1, 4))]
    for _ in range(rng.randint(1, 6)):
        fault = dice.fault(HINDRANCES, (0.3, 0.7, 1.5, 3.0))
        message = rng.choice(("Prepare", "Prepare", "Ack", "Ack", "Commit"))
        faults.append(dataclasses.replace(fault, after=message, count=rng.choice((1, 1, 2, 3, 4))))
    return faults


def _sluggish(dice: _Dice) -> list[Fault]:
    """All is slow, and somebody dies while others wait for what it has."""
    rng = dice.rng
    faults = [Fault(0.1, "slow", dice.names[0], seconds=30.0)]
    for _ in range(rng.randint(1, 2)):
        fault = dice.fault(("kill", "kill", "kill_peer", "kill_worker"), (1.0,))
        after = rng.choice(("Pull", "Pull", "RESULT", "RESULT", "Commit"))
        count = rng.randint(1, 3 if after == "Pull" else 30)
        faults.append(dataclasses.replace(fault, after=after, count=count))
    return faults


def _links(dice: _Dice) -> list[Fault]:
    """Links fail, for short or for long, and perhaps a node goes too."""
    lasts = (0.1, 0.4, 1.5, 3.0)
    faults = [dice.fault(LINKS, lasts) for _ in range(dice.rng.randint(1, 4))]
    if dice.rng.random() < 0.4:
        faults.append(dice.fault(("kill", "leave", "kill_peer", "restart"), (1.0,), 0.5))
    return faults


def _at_once(dice: _Dice) -> list[Fault]:
    """A link is lost, and in the same moment a node, perhaps the one that would relay."""
    rng = dice.rng
    first = dice.fault(LINKS, (0.7, 3.0))
    third = rng.choice([name for name in dice.names if name not in (first.a, first.b)] or [first.a])
    kind = rng.choice(("kill", "kill", "kill_peer", "kill_worker", "leave", "pause_peer"))
    gap = rng.choice((0.0, 0.0, 0.05, 0.4))
    return [first, Fault(round(first.at + gap, 2), kind, third)]


def _unlinked(rng: random.Random, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs without a path; those that are left join all, whoever of three or more goes."""
    ring = {frozenset(pair) for pair in zip(names, (*names[1:], names[0]), strict=True)}
    others = [pair for pair in combinations(names, 2) if frozenset(pair) not in ring]
    return tuple(sorted(rng.sample(others, rng.randint(0, len(others)))))


DRAWS: dict[str, Callable[[int], Case]] = {
    "life": draw,
    "short": draw_short,
    "large": draw_large,
    "huge": partial(draw_large, nodes=1000),
}
"""Ways to draw a case, by name."""

MOST_EVENTS = {"short": 1000}
"""A run of more than so many events is none of that kind, though it was drawn as one.

How long it takes until all train again is seen only when it is played: few take longer.
"""
