"""How the faults of a case strike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from lightning_chaos.testing.simulator.case import Fault
from lightning_chaos.testing.simulator.world import World

KINDS = {
    "kill": "SIGKILL of peer and worker",
    "kill_peer": "SIGKILL of the peer",
    "kill_worker": "SIGKILL of the worker",
    "restart": "the node is started if it does not live",
    "leave": "SIGTERM",
    "pause_peer": "SIGSTOP of the peer for a while",
    "hang_worker": "SIGSTOP of the worker for three times as long",
    "drag": "the node computes and answers slowly for a while",
    "slow": "all messages take long for a while",
    "cut": "connections between a and b are reset, and cannot be made for a while",
    "flap": "the same four times, with pauses as long",
    "stall": "nothing gets through between a and b for a while, and nothing is reset",
    "mute": "nothing gets through from a to b for a while; the other way is fine",
    "isolate": "a is cut from all others",
    "black_hole": "a is stalled from all others",
    "deafen": "nothing gets through from all others to a",
    "cut_data": "data connections between a and b are reset, and cannot be made for a while",
    "stall_data": "no data gets through between a and b for a while, and nothing is reset",
    "mute_data": "no data gets through from a to b for a while; the other way is fine",
    "isolate_data": "all data connections of a are reset, and cannot be made for a while",
    "deafen_data": "no data gets through from all others to a",
    "blip": "the control connection between a and b is reset",
    "blip_data": "the data connection between a and b is reset",
    "double": "two connections between a and b: messages overtake others and come twice",
}
"""Every kind, and what it does."""

_FOR_EACH = {
    "isolate": "cut",
    "black_hole": "stall",
    "deafen": "mute",
    "isolate_data": "cut_data",
    "deafen_data": "mute_data",
}
FLAPS = 4


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
    if fault.kind in _FOR_EACH:
        for name in world.names:
            if name != fault.a:
                inward = fault.kind in ("deafen", "deafen_data")
                ends = (name, fault.a) if inward else (fault.a, name)
                _to_path(world, _FOR_EACH[fault.kind], *ends, fault.seconds)
    elif fault.b and fault.kind in _PATHS:
        _to_path(world, fault.kind, fault.a, fault.b, fault.seconds)
    else:
        _to_node(world, fault)


# ---- paths -------------------------------------------------------------------------------------


def _to_path(world: World, kind: str, a: str, b: str, seconds: float) -> None:
    world.troubles.note(a, b, seconds=seconds if kind in _LASTING else 0.0)
    _PATHS[kind](world, a, b, seconds)


def _cut(world: World, a: str, b: str, seconds: float) -> None:
    world.paths.close(a, b, "cut", seconds)
    _reset(world, a, b, control=True, data=True)


def _cut_data(world: World, a: str, b: str, seconds: float) -> None:
    world.paths.close_data(a, b, "cut", seconds)
    _reset(world, a, b, data=True)


def _stall_data(world: World, a: str, b: str, seconds: float, *, back: bool) -> None:
    """Who gets nothing gives nothing: nobody can tell its worker from one that hangs."""
    world.paths.close_data(a, b, "stalled", seconds, back=back)
    for name in (a, b):
        world.troubles.note(name, seconds=seconds)


def _flap(world: World, a: str, b: str, seconds: float) -> None:
    def again() -> None:
        if world.clock.now < world.case.quiet_at:
            _to_path(world, "cut", a, b, seconds)

    for i in range(FLAPS):
        world.clock.after(2 * i * seconds, again)


def _reset(world: World, a: str, b: str, *, control: bool = False, data: bool = False) -> None:
    one, two = world.live(a), world.live(b)
    if one is None or two is None:
        return
    if control:
        world.control.break_(one.uid, two.uid)
    if data:
        world.wires.break_(one, two)


_PATHS: dict[str, Callable[[World, str, str, float], None]] = {
    "cut": _cut,
    "flap": _flap,
    "stall": lambda world, a, b, s: world.paths.close(a, b, "stalled", s),
    "mute": lambda world, a, b, s: world.paths.close(a, b, "stalled", s, back=False),
    "cut_data": _cut_data,
    "stall_data": lambda world, a, b, s: _stall_data(world, a, b, s, back=True),
    "mute_data": lambda world, a, b, s: _stall_data(world, a, b, s, back=False),
    "blip": lambda world, a, b, s: _reset(world, a, b, control=True),
    "blip_data": lambda world, a, b, s: _reset(world, a, b, data=True),
    "double": lambda world, a, b, s: world.paths.double(a, b, s),
}
_LASTING = ("cut", "stall", "mute", "cut_data", "stall_data", "mute_data")


# ---- nodes -------------------------------------------------------------------------------------


def _to_node(world: World, fault: Fault) -> None:
    """What happens to the processes of one node, or to all messages."""
    match fault.kind:
        case "restart":
            world.start(fault.a)
        case "slow":
            world.troubles.note(seconds=fault.seconds)
            world.paths.slow(fault.seconds)
        case "drag":
            world.troubles.note(fault.a, seconds=fault.seconds)
            world.paths.drag(fault.a, fault.seconds)
        case _:
            _signal(world, fault)


def _signal(world: World, fault: Fault) -> None:
    node = world.live(fault.a)
    if node is None:
        return
    world.troubles.note(fault.a)
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
            world.troubles.note(fault.a, seconds=fault.seconds * 3)
            node.worker.hang(fault.seconds * 3)
        case "leave":
            node.worker.leave()


# ---- in wait -----------------------------------------------------------------------------------


def _lie_in_wait(world: World, fault: Fault) -> None:
    """Strike when the message is under way: its sender, or its receiver if b is before a."""
    left = fault.count

    def watch(kind: str, sender: str, to: str) -> None:
        nonlocal left
        if kind != fault.after or world.clock.now >= world.case.quiet_at:
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
