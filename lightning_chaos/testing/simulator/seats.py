"""What a change of the view may do to members that live, and to links (design §4, link events)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightning_chaos.protocol.messages import Carry, Message
from lightning_chaos.protocol.values import Uid, View
from lightning_chaos.testing.simulator.outcome import Violation

if TYPE_CHECKING:
    from lightning_chaos.testing.simulator.node import Node
    from lightning_chaos.testing.simulator.world import World

FINE_TIMEOUTS = 3.0
"""For so long, in timeouts, a link must have worked before it must save a seat."""
DOWN_TIMEOUTS = 3.0
"""After so long, in timeouts, everybody must know that a link is down."""


MOST_PASSED = 20
"""A message that is passed on more often goes round in circles."""


class Seats:
    """Looks at each new view as it is first installed, and at what is passed on.

    Args:
        world: watched.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._carried: dict[int, tuple[bytes, int]] = {}
        """How often each message was passed on, by the identity of its bytes (kept with it)."""

    def changed(self, old: View, new: View, *, planned: bool) -> None:
        """Nobody loses its seat to a link, no link is taken back that is down.

        Raises:
            Violation: somebody or some link is.
        """
        if not planned:
            for uid in old.uids:
                if new.find(uid) is None:
                    self._left_out(uid, new)
        for a, b in set(old.missing) - set(new.missing):
            if new.find(a) is not None and new.find(b) is not None:
                self._taken_back(a, b)

    def sent(self, node: Node, message: Message) -> None:
        """Nothing is passed on again and again.

        Raises:
            Violation: it is.
        """
        if isinstance(message, Carry):
            content, times = self._carried.get(id(message.content), (message.content, 0))
            self._carried[id(content)] = (content, times + 1)
            if times >= MOST_PASSED:
                raise Violation(f"{node.uid} passes on what was passed on {times} times before")

    def _left_out(self, uid: Uid, new: View) -> None:
        world = self._world
        node, least = world.nodes[uid], FINE_TIMEOUTS * world.case.timeout_s
        if not _works(node):
            return
        for other in (world.nodes[u] for u in new.uids):
            fine_s = world.troubles.fine_s(node.name, other.name)
            joined = world.paths.joined(node.name, other.name)
            if joined and fine_s > least and _works(other):
                raise Violation(
                    f"epoch {new.epoch} leaves {uid} out, which lives; its link to {other.uid} "
                    f"has worked for more than {least:g} s"
                )

    def _taken_back(self, a: Uid, b: Uid) -> None:
        world = self._world
        one, two = world.nodes[a].name, world.nodes[b].name
        never = (one, two) in world.case.unlinked or (two, one) in world.case.unlinked
        down = math.inf if never else world.troubles.down_s(one, two)
        if down > DOWN_TIMEOUTS * world.case.timeout_s:
            raise Violation(f"the link of {a} and {b} is taken back; it is down since {down:.1f} s")


def _works(node: Node) -> bool:
    """Peer and worker take part, and nobody has told them to go."""
    worker = node.worker
    return node.member and node.worker_alive and worker.active and not worker.leaving
