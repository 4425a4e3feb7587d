"""Control connections between peers, as :mod:`lightning_chaos.peer.links` makes them.

One connection keeps the order of its messages, and loses those under way when it breaks.  A
broken one is dialled once more before it counts as down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lightning_chaos.protocol import events
from lightning_chaos.protocol.messages import Message, Status
from lightning_chaos.protocol.values import Uid
from lightning_chaos.testing.simulator.clock import Clock
from lightning_chaos.testing.simulator.node import Node, Nodes
from lightning_chaos.testing.simulator.paths import Paths

NEVER = float("inf")
PATIENCE_S = 1.0
"""How long a member is dialled before it is reported as down."""


@dataclass(eq=False)
class Connection:
    """One control connection."""

    open: dict[Uid, float]
    """From when on each end may use it."""
    last: dict[Uid, float]
    """When the last message to each end arrives."""
    queues: dict[Uid, deque[tuple[float, Message]]]
    """What is under way to each end, and when it is due."""
    broken: bool = False


class Control:
    """All control connections of a run.

    Args:
        clock: of the run.
        paths: between the machines.
        nodes: every incarnation.
        same_machine: peers see when the process of another one is gone.
        give: hands an event to a peer.
    """

    def __init__(
        self,
        clock: Clock,
        paths: Paths,
        nodes: Nodes,
        *,
        same_machine: bool,
        give: Callable[[Node, events.Event], None],
    ) -> None:
        self._clock, self._paths, self._nodes = clock, paths, nodes
        self._same_machine = same_machine
        self._give = give
        self._connections: dict[frozenset[Uid], Connection] = {}

    def _state(self, node: Node, uid: Uid) -> str:
        return self._paths.state(node.name, self._nodes[uid].name)

    def _delay(self, node: Node) -> float:
        return self._paths.delay(node.name)

    # ---- dialling --------------------------------------------------------------------------

    def linked(self, a: Uid, b: Uid) -> bool:
        """A connection between them stands, or is being made."""
        connection = self._connections.get(frozenset((a, b)))
        return connection is not None and not connection.broken

    def dial(self, node: Node) -> None:
        """Dial whom it wants and is not linked to; say of whom cannot be reached for long."""
        view = node.peer.view
        for uid, since in list(node.wanted.items()):
            if self.linked(node.uid, uid):
                continue
            other = self._nodes[uid]
            gone = self._same_machine and not other.peer_alive
            if not other.peer_alive:
                # Whoever answers at its address now is its next incarnation.
                newest = next(n for n in reversed(self._nodes.values()) if n.name == other.name)
                if newest is not node:
                    self.connect(node, newest.uid)
            if other.peer_alive and not self._state(node, uid):
                self.connect(node, uid)
            elif gone or self._clock.now - since > PATIENCE_S:
                self._report_down(node, uid, "connection refused")
                if gone or view is None or view.find(uid) is None:
                    del node.wanted[uid]
                else:
                    node.wanted[uid] = NEVER  # reported; dialled on and on

    def seek(self, node: Node) -> None:
        """Call whoever is now where those were without whom its view went on."""
        for member in node.peer.view.sought if node.peer.view is not None else ():
            names = [n for n in self._nodes.values() if n.name == member.node]
            if names and names[-1] is not node:
                self.connect(node, names[-1].uid)

    def connect(self, node: Node, uid: Uid) -> None:
        """Make a connection, if that is possible."""
        other = self._nodes[uid]
        if self.linked(node.uid, uid) or not other.peer_alive or self._state(node, uid):
            return
        at = self._clock.now + self._delay(node)
        opened = {node.uid: at, uid: at + self._delay(other)}
        connection = Connection(opened, dict(opened), {node.uid: deque(), uid: deque()})
        self._connections[frozenset((node.uid, uid))] = connection
        for one, two in ((node, other), (other, node)):
            up = partial(self._up, connection, one, two)
            self._clock.after(connection.open[one.uid] - self._clock.now, up)

    def _up(self, connection: Connection, node: Node, other: Node) -> None:
        if other.uid in node.wanted:
            node.wanted[other.uid] = self._clock.now
        if not connection.broken and node.peer_alive and other.uid not in node.up:
            node.up.add(other.uid)
            self._give(node, events.Linked(other.me))

    # ---- breaking --------------------------------------------------------------------------

    def hang_up(self, node: Node, uid: Uid) -> None:
        """Close it once what is queued is sent."""
        node.wanted.pop(uid, None)
        node.up.discard(uid)
        self._break_when_heard(node, uid, polite=True)

    def end(self, node: Node, *, polite: bool) -> None:
        """The peer's process is gone."""
        for pair in [p for p in self._connections if node.uid in p]:
            (other,) = pair - {node.uid}
            self._break_when_heard(node, other, polite=polite)

    def _break_when_heard(self, node: Node, other: Uid, *, polite: bool) -> None:
        """A stalled path lets no reset through; a polite end sends what is queued first."""
        connection = self._connections.get(frozenset((node.uid, other)))
        queued = polite and connection is not None and connection.last[other] > self._clock.now
        if self._state(node, other) == "stalled" or queued:
            later = partial(self._break_when_heard, node, other, polite=polite)
            self._clock.after(0.01, later)
        else:
            self.break_(node.uid, other)

    def break_(self, a: Uid, b: Uid) -> None:
        """The connection is reset: what is under way is lost."""
        connection = self._connections.get(frozenset((a, b)))
        if connection is None or connection.broken:
            return
        connection.broken = True
        for uid, other in ((a, b), (b, a)):
            node = self._nodes[uid]
            self._clock.after(self._delay(node), partial(self._reset, node, other))

    def _reset(self, node: Node, uid: Uid) -> None:
        if not node.peer_alive or self.linked(node.uid, uid):
            return
        view = node.peer.view
        needed = uid in node.wanted or (view is not None and view.find(uid) is not None)
        alive = self._nodes[uid].peer_alive
        if needed and alive and not self._state(node, uid):
            self.connect(node, uid)
        elif needed and alive:
            pause = self._clock.rng.uniform(0.0, 0.5)
            self._clock.after(pause, partial(self._still_down, node, uid))
        else:
            self._report_down(node, uid, "connection reset")

    def _still_down(self, node: Node, uid: Uid) -> None:
        if not self.linked(node.uid, uid):
            self._report_down(node, uid, "connection reset")
            node.wanted.setdefault(uid, NEVER)

    def _report_down(self, node: Node, uid: Uid, reason: str) -> None:
        if not node.peer_alive:
            return
        if node.wanted.get(uid) != NEVER:
            node.up.discard(uid)
            self._give(node, events.Unlinked(uid, reason))
        if self._same_machine and not self._nodes[uid].peer_alive:
            self._give(node, events.ProcessGone(uid))

    # ---- messages --------------------------------------------------------------------------

    def send(self, node: Node, to: Uid, message: Message) -> None:
        """A message goes on its way, if there is a connection."""
        connection = self._connections.get(frozenset((node.uid, to)))
        if connection is None or connection.broken or connection.open[node.uid] > self._clock.now:
            return
        at = max(connection.last[to], self._clock.now + self._delay(node))
        connection.last[to] = at
        connection.queues[to].append((at, message))
        arrive = partial(self._arrive, connection, node, self._nodes[to])
        self._clock.after(at - self._clock.now, arrive)
        if not isinstance(message, Status):
            self._paths.sent(type(message).__name__, node.name, self._nodes[to].name)

    def _arrive(self, connection: Connection, sender: Node, node: Node) -> None:
        """Hand over what is due."""
        queue = connection.queues[node.uid]
        while queue and queue[0][0] <= self._clock.now:
            if connection.broken or not node.peer_alive:
                return
            if self._paths.state(sender.name, node.name) == "stalled":
                # TCP sends it again until it gets through, in order with what comes after.
                self._clock.after(0.02, partial(self._arrive, connection, sender, node))
                return
            _, message = queue.popleft()
            if not isinstance(message, Status):
                self._clock.tell(sender.uid, ">", node.uid, message)
            self._give(node, events.Heard(sender.uid, message))  # type: ignore[arg-type]
