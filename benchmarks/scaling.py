"""What a change of the view costs against the number of members, in the simulator.

Every control message takes one millisecond, and no time passes while a peer thinks: the figures
are those of the protocol, not of a machine.  Heartbeats are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import common
import numpy as np

from lightning_chaos.protocol.messages import Carry, Message, Prepare, Status, decode, encode
from lightning_chaos.protocol.values import View
from lightning_chaos.testing.simulator import Case, Fault
from lightning_chaos.testing.simulator.faults import strike
from lightning_chaos.testing.simulator.node import Node
from lightning_chaos.testing.simulator.run import begin
from lightning_chaos.testing.simulator.world import World

MEMBERS = (5, 10, 50, 100, 500, 1000)
SMOKE = (5, 10, 20)
EVENTS = ("join", "kill", "link lost")
DELAY_S = 0.001
BOUND_S = 60.0


@dataclass(frozen=True)
class Cost:
    """Of one event, in a cluster of so many."""

    members: int
    messages: float
    """Control messages that a member sends, on average."""
    sent_bytes: float
    """Bytes of them."""
    most_bytes: int
    """Bytes of the member that sends most."""
    seconds: float
    """From the event, or from the first PREPARE where one asks first, until all hold the view."""


class Meter:
    """Counts what is sent, heartbeats apart.

    Args:
        world: listened to from now on.
    """

    def __init__(self, world: World) -> None:
        self.messages = 0
        self.sent_bytes: dict[str, int] = {}
        self.prepared_at: list[float] = []
        """When the changes since :meth:`mark` were first proposed."""
        self._world = world
        self._sizes: dict[int, tuple[Message, int]] = {}
        world.control.taps.append(self)

    def __call__(self, node: Node, message: Message) -> None:
        inner = decode(message.content) if isinstance(message, Carry) else message
        if not isinstance(inner, Status):
            self.messages += 1
            self.sent_bytes[node.uid] = self.sent_bytes.get(node.uid, 0) + self._size(message)
        if isinstance(inner, Prepare):
            self.prepared_at.append(self._world.clock.now)

    def _size(self, message: Message) -> int:
        """Encoded once for all that it goes to; kept, so that its identity stays its own."""
        known = self._sizes.get(id(message))
        if known is None:
            known = self._sizes[id(message)] = (message, len(encode(message)))
        return known[1]


def until_all(world: World, condition: Callable[[View], bool]) -> float:
    """Wait until every member that lives holds such a view; returns when that is, seconds."""

    def held() -> bool:
        views = (n.peer.view for n in world.nodes if n.member)
        return all(view is not None and condition(view) for view in views)

    world.until(held, "a view that all hold", BOUND_S)
    return world.clock.now


def measure(members: int, event: str) -> Cost:
    """Let it happen in the middle of a cluster, and wait until all know."""
    case = Case(
        1,
        members + (event == "join"),
        founders=members,
        timeout_s=max(1.0, members / 100),
        pace=5.0,
        delay_s=DELAY_S,
    )
    world = World(case)
    begin(world)
    world.clock.run_until(0.05)
    meter, begun = Meter(world), world.clock.now
    a, b = world.names[members // 2], world.names[-1]
    if event == "join":
        world.start(b)
        learns = until_all(world, lambda view: bool(view.learners)) - meter.prepared_at[0]
        meter.prepared_at.clear()
        seconds = until_all(world, lambda view: len(view.uids) > members) - meter.prepared_at[0]
        seconds += learns
    elif event == "kill":
        strike(world, Fault(begun, "kill", a))
        seconds = until_all(world, lambda view: len(view.uids) < members) - begun
    else:
        strike(world, Fault(begun, "cut", a, b, seconds=BOUND_S))
        seconds = until_all(world, lambda view: bool(view.missing)) - begun
    sent = meter.sent_bytes.values()
    return Cost(members, meter.messages / members, sum(sent) / members, max(sent), seconds)


# ---- tables ------------------------------------------------------------------------------------


def slope(costs: Sequence[Cost], value: Callable[[Cost], float]) -> float:
    """Exponent p of the law value = c·members^p that fits best, from ten members on."""
    points = [(math.log(c.members), math.log(value(c))) for c in costs if c.members >= 10]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def table(event: str, costs: Sequence[Cost]) -> str:
    """Rows of members, and the law of growth below."""
    rows = [
        f"| {c.members} | {c.messages:.1f} | {c.sent_bytes / 1e3:.1f} | {c.most_bytes / 1e3:.0f} "
        f"| {c.seconds * 1e3:.0f} |"
        for c in costs
    ]
    values: tuple[Callable[[Cost], float], ...] = (
        lambda c: c.messages,
        lambda c: c.sent_bytes,
        lambda c: c.most_bytes,
        lambda c: c.seconds,
    )
    powers = " | ".join(f"n^{slope(costs, value):.2f}" for value in values)
    head = "| members | messages per member | kB per member | kB of whoever sends most | ms |"
    return "\n".join(
        [f"**{event}**", "", head, "|---|---|---|---|---|", *rows, f"| law | {powers} |"]
    )


def main() -> None:
    parser = common.parser(__doc__ or "")
    parser.add_argument(
        "--members",
        type=int,
        nargs="+",
        default=MEMBERS,
        help="cluster sizes (default: %(default)s)",
    )
    options = parser.parse_args()
    sizes = SMOKE if options.smoke else options.members
    parts = [
        "# What a change of the view costs against the number of members",
        f"In the simulator ([benchmarks/scaling.py](../scaling.py)). Every control message takes "
        f"{DELAY_S * 1e3:g} ms and thinking takes none, so these are the protocol's own figures, "
        "the same on every machine. Heartbeats are left out; what peers and workers say to each "
        "other is in the time and not in the counts. Time: from the event until all hold the new "
        "view; for a join the two changes that it takes, each from its first PREPARE. The last "
        "row is the power of n that fits best from ten members on.",
        *(table(event, [measure(size, event) for size in sizes]) for event in EVENTS),
    ]
    common.publish("\n\n".join(parts) + "\n", options.write)


if __name__ == "__main__":
    main()
