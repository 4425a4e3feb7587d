"""How the faults of a case strike."""

from __future__ import annotations

import dataclasses

from lightning_chaos.testing.simulator.case import FAULTY_S, Fault
from lightning_chaos.testing.simulator.world import World

KINDS = {
    "kill": "SIGKILL of peer and worker",
    "kill_peer": "SIGKILL of the peer",
    "kill_worker": "SIGKILL of the worker",
    "restart": "the node is started again if it does not live",
    "leave": "SIGTERM",
    "pause_peer": "SIGSTOP of the peer for a while",
    "hang_worker": "SIGSTOP of the worker for three times as long",
    "drag": "the node computes and answers slowly for a while",
    "slow": "all messages take long for a while",
    "cut": "connections between a and b are reset, and cannot be made for a while",
    "stall": "nothing gets through between a and b for a while, and nothing is reset",
    "isolate": "a is cut from all others",
    "black_hole": "a is stalled from all others",
    "blip": "the control connection between a and b is reset",
    "blip_data": "the data connection between a and b is reset",
}
"""Every kind, and what it does."""


def set_up(world: World, fault: Fault) -> None:
    """See that the fault strikes in its time.

    Raises:
        ValueError: no such kind.
    """
    if fault.kind not in KINDS:
        raise ValueError(f"no fault is called {fault.kind!r}; there are {', '.join(KINDS)}")
    work = _lie_in_wait if fault.after else strike
    world.clock.after(fault.at, lambda: work(world, fault))


def strike(world: World, fault: Fault) -> None:
    """It happens now."""
    world.clock.tell("***", fault)
    a, b = fault.a, fault.b
    match fault.kind:
        case "restart":
            world.start(a)
        case "slow":
            world.paths.slow(fault.seconds)
        case "drag":
            world.paths.drag(a, fault.seconds)
        case "cut":
            world.paths.close(a, b, "cut", fault.seconds)
            _reset(world, a, b, control=True, data=True)
        case "stall":
            world.paths.close(a, b, "stalled", fault.seconds)
        case "isolate" | "black_hole":
            kind = "cut" if fault.kind == "isolate" else "stall"
            for name in world.names:
                if name != a:
                    strike(world, dataclasses.replace(fault, kind=kind, b=name))
        case "blip":
            _reset(world, a, b, control=True)
        case "blip_data":
            _reset(world, a, b, data=True)
        case _:
            _signal(world, fault)


def _reset(world: World, a: str, b: str, *, control: bool = False, data: bool = False) -> None:
    one, two = world.live(a), world.live(b)
    if one is None or two is None:
        return
    if control:
        world.control.break_(one.uid, two.uid)
    if data:
        world.wires.break_(one, two)


def _signal(world: World, fault: Fault) -> None:
    """What happens to the processes of one node."""
    node = world.live(fault.a)
    if node is None:
        return
    match fault.kind:
        case "kill":
            world.kill_worker(node)
            world.kill_peer(node)
        case "kill_peer":
            world.kill_peer(node)
        case "kill_worker":
            world.kill_worker(node)
        case "pause_peer":
            world.pause_peer(node, fault.seconds)
        case "hang_worker":
            node.worker.hang(fault.seconds * 3)
        case "leave":
            node.worker.leave()


def _lie_in_wait(world: World, fault: Fault) -> None:
    """Strike when the message is under way: its sender, or its receiver if b is before a."""
    left = fault.count

    def watch(kind: str, sender: str, to: str) -> None:
        nonlocal left
        if kind != fault.after or world.clock.now >= FAULTY_S:
            return
        left -= 1
        if left > 0:
            return
        world.paths.watchers.remove(watch)
        a, b = (sender, to) if fault.a < fault.b else (to, sender)
        hit = dataclasses.replace(fault, a=a, b=b, after="", count=1)
        # Not within the step that sends it, but before it arrives.
        world.clock.after(0.0, lambda: strike(world, hit))

    world.paths.watchers.append(watch)
