"""Faults that a seed draws, and how they strike."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocol_network import Node
from protocol_world import World

NODES = "abcde"
FAULTY_S = 7.0
"""After that the network is fine and nobody fails any more."""


@dataclass(frozen=True)
class Fault:
    """Something that happens to a run."""

    at: float
    kind: str
    a: str
    b: str
    seconds: float
    after: str = ""
    """Kind of message after the sending of which it strikes the two that it goes between."""
    count: int = 0
    """Which message of that kind, from :attr:`at` on."""

    def __str__(self) -> str:
        when = f" after {self.after} {self.count}" if self.after else ""
        return f"{self.at:.2f}{when} {self.kind} {self.a} {self.b} {self.seconds:.2f}"


KINDS = (
    ("kill", 3),
    ("kill_peer", 2),
    ("kill_worker", 2),
    ("restart", 4),
    ("cut", 3),
    ("stall", 2),
    ("blip", 4),
    ("blip_data", 2),
    ("pause_peer", 2),
    ("hang_worker", 2),
    ("leave", 2),
    ("isolate", 3),
    ("black_hole", 2),
    ("slow", 1),
)
STORM = ("cut", "stall", "blip", "blip_data", "isolate", "black_hole", "pause_peer", "hang_worker")


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
)


@dataclass(frozen=True)
class Case:
    """One run: everything that a seed decides."""

    seed: int
    names: str
    same_machine: bool
    faults: tuple[Fault, ...]
    ends: bool

    @classmethod
    def of(cls, seed: int) -> Case:
        rng = random.Random(f"case {seed}")
        names = NODES[: rng.choice((2, 3, 3, 4, 5))]
        faults = rng.choice((mixed, mixed, storm, duel, duel))(rng, names)
        faults.sort(key=lambda fault: fault.at)
        return cls(seed, names, rng.random() < 0.5, tuple(faults), rng.random() < 0.3)


def mixed(rng: random.Random, names: str) -> list[Fault]:
    """A few of anything."""
    kinds = [kind for kind, times in KINDS for _ in range(times)]
    some = rng.sample(sorted(set(kinds)), rng.randint(2, 8))
    kinds = [kind for kind in kinds if kind in some]
    count = rng.choice((1, 2, 3, 5, 8))
    return [some_fault(rng, names, kinds, (0.2, 0.7, 3.0), 0.4) for _ in range(count)]


def storm(rng: random.Random, names: str) -> list[Fault]:
    """The network fails here and there, all the time, and one node goes."""
    kinds = rng.sample(STORM, rng.randint(2, len(STORM)))
    going = rng.choice(("kill", "kill_peer", "kill_worker", "leave"))
    faults = [
        some_fault(rng, names, kinds, (0.1, 0.3, 0.7, 1.5), 0.4) for _ in range(rng.randint(8, 20))
    ]
    return [*faults, some_fault(rng, names, [going], (0.1,), 0.0)]


def duel(rng: random.Random, names: str) -> list[Fault]:
    """Whoever changes the view is held up in the middle, so that another one takes over."""
    reasons = ("kill", "leave", "leave", "blip_data", "hang_worker", "kill_worker", "restart")
    stops = ("pause_peer", "pause_peer", "isolate", "black_hole", "stall", "cut", "kill_peer")
    faults = [some_fault(rng, names, reasons, (0.1, 0.5), 0.0) for _ in range(rng.randint(1, 4))]
    for _ in range(rng.randint(1, 6)):
        fault = some_fault(rng, names, stops, (0.3, 0.7, 1.5, 3.0), 0.0)
        message = rng.choice(("Prepare", "Prepare", "Ack", "Ack", "Commit"))
        faults.append(dataclasses.replace(fault, after=message, count=rng.choice((1, 1, 2, 3, 4))))
    return faults


def some_fault(
    rng: random.Random,
    names: str,
    kinds: Sequence[str],
    lasts: Sequence[float],
    waiting: float,
) -> Fault:
    """One of these; with a chance of ``waiting`` it waits for a message."""
    a, b = rng.sample(names, 2)
    at = rng.uniform(0.3, FAULTY_S) if rng.random() < 0.5 else rng.gauss(4.0, 0.3)
    after = rng.choice(MESSAGES) if rng.random() < waiting else ""
    kind, seconds = rng.choice(kinds), rng.choice(lasts)
    return Fault(max(at, 0.1), kind, a, b, seconds, after, rng.randint(1, 6))


def strike(world: World, fault: Fault) -> None:
    node, other = world.live(fault.a), world.live(fault.b)
    pair = frozenset((fault.a, fault.b))
    world.tell(f"*** {fault}")

    def both(do: Callable[[Node], None]) -> None:
        if node is not None:
            do(node)

    match fault.kind:
        case "kill":
            both(world.kill_worker)
            both(world.kill_peer)
        case "kill_peer":
            both(world.kill_peer)
        case "kill_worker":
            both(world.kill_worker)
        case "restart":
            if node is None:
                world.start(fault.a)
        case "cut" | "stall":
            world.path[pair] = "cut" if fault.kind == "cut" else "stalled"
            world.heals[pair] = world.now + fault.seconds
            world.after(fault.seconds, lambda: heal(world, pair))
            if node and other and fault.kind == "cut":
                world.break_conn(node.uid, other.uid)
                world.break_data(node, other)
        case "isolate" | "black_hole":
            for name in others(world, fault.a):
                kind = "cut" if fault.kind == "isolate" else "stall"
                strike(world, dataclasses.replace(fault, kind=kind, b=name))
        case "blip":
            if node and other:
                world.break_conn(node.uid, other.uid)
        case "blip_data":
            if node and other:
                world.break_data(node, other)
        case "pause_peer":
            both(lambda n: world.pause_peer(n, fault.seconds))
        case "hang_worker":
            both(lambda n: n.worker.hang(fault.seconds * 3))
        case "leave":
            both(lambda n: n.worker.leave())
        case "slow":
            world.slow(fault.seconds)


def heal(world: World, pair: frozenset[str]) -> None:
    if world.heals.get(pair, 0.0) <= world.now:
        world.path.pop(pair, None)


def others(world: World, but: str) -> list[str]:
    """All nodes of the run but one."""
    return [name for name in world.names if name != but]


def lie_in_wait(world: World, fault: Fault) -> None:
    """Strike when the message is under way; its sender or its receiver is hit."""
    before, left = world.on_send, fault.count

    def watch(kind: str, sender: str, to: str) -> None:
        nonlocal left
        before(kind, sender, to)
        if kind == fault.after and world.now < FAULTY_S:
            left -= 1
            if left == 0:
                pair = (sender, to) if fault.a < fault.b else (to, sender)
                hit = dataclasses.replace(fault, a=pair[0], b=pair[1], after="")
                # Not within the step that sends it, but before it arrives.
                world.after(0.0, lambda: strike(world, hit))

    world.on_send = watch
