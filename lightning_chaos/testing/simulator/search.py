"""How simulated peers look for the run, one at a time as on one machine."""

from __future__ import annotations

from collections.abc import Callable

from lightning_chaos.protocol import events
from lightning_chaos.protocol.standing import Role
from lightning_chaos.testing.simulator.clock import Clock
from lightning_chaos.testing.simulator.control import Control
from lightning_chaos.testing.simulator.node import Node, Nodes

AGAIN_S = 1.0
"""A peer that still searches looks again after so long."""


class Search:
    """The discovery directory and its lock.

    Args:
        clock: of the world.
        nodes: of which those listed are found.
        control: reaches them.
        give: an event for a peer.
    """

    def __init__(
        self,
        clock: Clock,
        nodes: Nodes,
        control: Control,
        give: Callable[[Node, events.Event], None],
    ) -> None:
        self._clock = clock
        self._nodes = nodes
        self._control = control
        self._give = give
        self._lock: Node | None = None

    def look(self, node: Node) -> None:
        """Under the lock, reach all who are listed, then say that the search is over."""
        if not node.peer.searching or self._clock.now < node.search_at:
            return
        holder = self._lock
        if holder and holder is not node and holder.peer_alive and holder.peer.searching:
            return
        self._lock = node
        node.search_at = self._clock.now + AGAIN_S
        out = (Role.OUT, Role.SEARCHING)
        others = [n for n in self._nodes if n is not node and n.peer_alive]
        listed = [n for n in others if n.peer.role not in out]
        for other in listed:
            self._control.connect(node, other.uid)
        pause = self._clock.rng.uniform(0.2, 0.6)
        self._clock.after(pause, lambda: self._over(node, bool(listed)))

    def _over(self, node: Node, listed: bool) -> None:
        if node.peer_alive and node.peer.searching and bool(node.up) == listed:
            self._give(node, events.Searched(exclusive=True))
        elif self._lock is node:
            self._lock = None  # others may have better luck
