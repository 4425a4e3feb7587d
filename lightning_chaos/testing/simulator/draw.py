"""Random cases: a seed decides the nodes and what happens to them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from lightning_chaos.testing.simulator.case import FAULTY_S, Case, Fault

NODES = "abcde"

COMMON = {
    "kill": 3,
    "kill_peer": 2,
    "kill_worker": 2,
    "restart": 4,
    "cut": 3,
    "stall": 2,
    "blip": 4,
    "blip_data": 2,
    "pause_peer": 2,
    "hang_worker": 2,
    "leave": 2,
    "isolate": 3,
    "black_hole": 2,
    "slow": 1,
    "drag": 2,
}
"""Faults of a mixed case, and how often each is drawn."""

STORM = (
    "cut",
    "stall",
    "blip",
    "blip_data",
    "isolate",
    "black_hole",
    "pause_peer",
    "hang_worker",
    "drag",
)
BETWEEN_MACHINES = ("cut", "stall", "isolate", "black_hole")
"""What does not happen between processes of one machine."""
CALLS = ("kill", "leave", "leave", "blip_data", "hang_worker", "kill_worker", "restart")
"""What calls for a change of the view."""
HINDRANCES = ("pause_peer", "pause_peer", "isolate", "black_hole", "stall", "cut", "kill_peer")

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
    "Pull",
    "CONTRIBUTION",
    "RESULT",
)
"""What faults lie in wait for: messages, pulls, and frames."""


def draw(seed: int) -> Case:
    """The case of that seed."""
    rng = random.Random(f"case {seed}")
    names = NODES[: rng.choice((2, 3, 3, 4, 5))]
    same_machine = rng.random() < 0.3
    make = rng.choice((_mixed, _mixed, _storm, _duel, _duel, _duel, _sluggish))
    faults = make(_Dice(rng, names, same_machine))
    faults.sort(key=lambda fault: fault.at)
    return Case(seed, names, tuple(faults), same_machine, rng.random() < 0.3)


@dataclasses.dataclass(frozen=True)
class _Dice:
    """What the faults of a case are drawn with."""

    rng: random.Random
    names: str
    same_machine: bool

    def fault(self, kinds: Sequence[str], lasts: Sequence[float], waiting: float = 0.0) -> Fault:
        """One of these kinds; with a chance of ``waiting`` it waits for a message."""
        rng = self.rng
        kinds = [k for k in kinds if not (self.same_machine and k in BETWEEN_MACHINES)]
        a, b = rng.sample(self.names, 2)
        at = rng.uniform(0.3, FAULTY_S) if rng.random() < 0.5 else rng.gauss(4.0, 0.3)
        after = rng.choice(MESSAGES) if rng.random() < waiting else ""
        count = rng.randint(1, 6) if after else 1
        kind, seconds = rng.choice(kinds), rng.choice(lasts)
        return Fault(round(max(at, 0.1), 2), kind, a, b, seconds, after, count)


def _mixed(dice: _Dice) -> list[Fault]:
    """A few of anything."""
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
