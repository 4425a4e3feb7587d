"""Control connections between peers, as :mod:`lightning_chaos.peer.links` makes them.

One connection keeps the order of its messages, and loses those under way when it breaks.  A
broken one is dialled once more before it counts as down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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
TWICE = 0.3
"""Chance of a message to come twice while there are two connections."""

Tap = Callable[[Node, Message], None]
"""Sees what a node sends."""


@dataclass(eq=False, slots=True)
class End:
    """One end of a control connection."""

    node: Node
    """Whose it is."""
    open: float
    """From when on it may be used."""
    last: float
    """When the last message to it arrives."""
    held: list[Message] = field(default_factory=list)
    """What a stalled path keeps from it."""


@dataclass(eq=False, slots=True)
class Connection:
    """One control connection, with an end at each of two nodes."""

    ends: dict[Uid, End]
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
        self._unsent: dict[tuple[Uid, Uid], list[Message]] = {}
        """By (from, to): what waits for a link that is being dialled again."""
        self.taps: list[Tap] = []

    def _state(self, node: Node, uid: Uid) -> str:
        return self._paths.state(node.name, self._nodes[uid].name)

    def _joined(self, node: Node, uid: Uid) -> bool:
        return self._paths.joined(node.name, self._nodes[uid].name)

    def _delay(self, node: Node) -> float:
        return self._paths.delay(node.name)

    # ---- dialling --------------------------------------------------------------------------

    def dial(self, node: Node) -> None:
        """Dial whom it wants and is not linked to; say of whom cannot be reached for long."""
        lacking = node.wanted.keys() - node.links.keys()
        if not lacking:
            return
        view = node.peer.view
        for uid in [uid for uid in node.wanted if uid in lacking]:
            other = self._nodes[uid]
            gone = self._same_machine and not other.peer_alive
            if not other.peer_alive:
                # Whoever answers at its address now is its next incarnation.
                newest = self._nodes.newest(other.name)
                if newest is not None and newest is not node:
                    self.connect(node, newest.uid)
            if other.peer_alive and self._joined(node, uid):
                self.connect(node, uid)
            elif gone or self._clock.now - node.wanted[uid] > PATIENCE_S:
                self._report_down(node, uid, "connection refused")
                if gone or view is None or view.find(uid) is None:
                    del node.wanted[uid]
                else:
                    node.wanted[uid] = NEVER  # reported; dialled on and on

    def seek(self, node: Node) -> None:
        """Call whoever is now where those were without whom its view went on."""
        for member in node.peer.view.sought if node.peer.view is not None else ():
            other = self._nodes.newest(member.node)
            if other is not None and other is not node:
                self.connect(node, other.uid)

    def connect(self, node: Node, uid: Uid) -> None:
        """Make a connection, if that is possible."""
        other = self._nodes[uid]
        if uid in node.links or not other.peer_alive or not self._joined(node, uid):
            return
        at = self._clock.now + self._delay(node)
        connection = self.join(node, other, at, at + self._delay(other))
        for one, two in ((node, other), (other, node)):
            up = partial(self._up, connection, one, two)
            self._clock.after(connection.ends[one.uid].open - self._clock.now, up)

    def join(self, node: Node, other: Node, at: float, there_at: float) -> Connection:
        """A connection that can be used from these times on, by node and by other."""
        ends = {node.uid: End(node, at, at), other.uid: End(other, there_at, there_at)}
        connection = node.links[other.uid] = other.links[node.uid] = Connection(ends)
        return connection

    def _up(self, connection: Connection, node: Node, other: Node) -> None:
        if other.uid in node.wanted:
            node.wanted[other.uid] = self._clock.now
        if connection.broken or not node.peer_alive:
            return
        if other.uid not in node.up:
            node.up.add(other.uid)
            self._give(node, events.Linked(other.me))
        for message in self._unsent.pop((node.uid, other.uid), ()):
            self.send(node, other.uid, message)

    # ---- breaking --------------------------------------------------------------------------

    def hang_up(self, node: Node, uid: Uid) -> None:
        """Close it once what is queued is sent."""
        node.wanted.pop(uid, None)
        node.up.discard(uid)
        self._unsent.pop((node.uid, uid), None)
        self._break_when_heard(node, uid, polite=True)

    def end(self, node: Node, *, polite: bool) -> None:
        """The peer's process is gone."""
        for other in list(node.links):
            self._break_when_heard(node, other, polite=polite)

    def _break_when_heard(self, node: Node, other: Uid, *, polite: bool) -> None:
        """A stalled path lets no reset through; a polite end sends what is queued first."""
        connection = node.links.get(other)
        if connection is None:
            return
        later = partial(self._break_when_heard, node, other, polite=polite)
        queued = connection.ends[other].last - self._clock.now
        if self._state(node, other) == "stalled":
            self._paths.when_open(node.name, self._nodes[other].name, later)
        elif polite and queued > 0:
            self._clock.after(queued + 0.001, later)
        else:
            self.break_(node.uid, other)

    def break_(self, a: Uid, b: Uid) -> None:
        """The connection is reset: what is under way is lost."""
        connection = self._nodes[a].links.pop(b, None)
        if connection is None:
            return
        del self._nodes[b].links[a]
        connection.broken = True
        for uid, other in ((a, b), (b, a)):
            node = self._nodes[uid]
            self._clock.after(self._delay(node), partial(self._reset, node, other))

    def _reset(self, node: Node, uid: Uid) -> None:
        if not node.peer_alive or uid in node.links:
            return
        view = node.peer.view
        needed = uid in node.wanted or (view is not None and view.find(uid) is not None)
        alive = self._nodes[uid].peer_alive
        if needed and alive and self._joined(node, uid):
            self.connect(node, uid)
        elif needed and alive:
            self._clock.after(self._paths.vain_s(), partial(self._still_down, node, uid))
        else:
            self._report_down(node, uid, "connection reset")

    def _still_down(self, node: Node, uid: Uid) -> None:
        if uid not in node.links:
            self._report_down(node, uid, "connection reset")
            node.wanted.setdefault(uid, NEVER)

    def _report_down(self, node: Node, uid: Uid, reason: str) -> None:
        if not node.peer_alive:
            return
        if node.wanted.get(uid) != NEVER:
            node.up.discard(uid)
            unsent = tuple(self._unsent.pop((node.uid, uid), ()))
            self._give(node, events.Unlinked(uid, reason, unsent))
        if self._same_machine and not self._nodes[uid].peer_alive:
            self._give(node, events.ProcessGone(uid))

    # ---- messages --------------------------------------------------------------------------

    def send(self, node: Node, to: Uid, message: Message) -> None:
        """A message goes on its way over a connection, or waits for one to be made again."""
        connection, now = node.links.get(to), self._clock.now
        if connection is None or connection.ends[node.uid].open > now:
            if to in node.up and not isinstance(message, Status):
                self._unsent.setdefault((node.uid, to), []).append(message)
            return
        for tap in self.taps:
            tap(node, message)
        end = connection.ends[to]
        arrive = partial(self._arrive, connection, node, end, message)
        at = now + self._paths.delay(node.name)
        if not self._paths.doubled(node.name, end.node.name):
            if at < end.last:
                at = end.last
            end.last = at
        elif self._clock.rng.random() < TWICE:
            self._clock.after(self._delay(node), arrive)
        self._clock.after(at - now, arrive)
        if self._paths.watchers and not isinstance(message, Status):
            self._paths.sent(type(message).__name__, node.name, end.node.name)

    def _arrive(self, connection: Connection, sender: Node, end: End, message: Message) -> None:
        """Hand it over, or hold it back while the path is stalled."""
        node = end.node
        if connection.broken or not node.peer_alive:
            return
        if end.held:
            end.held.append(message)
        elif self._paths.state(sender.name, node.name) == "stalled":
            # TCP sends it again until it gets through, in order with what comes after.
            end.held.append(message)
            release = partial(self._release, connection, sender, node)
            self._paths.when_open(sender.name, node.name, release)
        else:
            self._hand_over(sender, node, message)

    def _release(self, connection: Connection, sender: Node, node: Node) -> None:
        if self._paths.state(sender.name, node.name) == "stalled":
            release = partial(self._release, connection, sender, node)
            self._paths.when_open(sender.name, node.name, release)
            return
        end = connection.ends[node.uid]
        held, end.held = end.held, []
        for message in held:
            if not connection.broken and node.peer_alive:
                self._hand_over(sender, node, message)

    def _hand_over(self, sender: Node, node: Node, message: Message) -> None:
        if not isinstance(message, Status):
            self._clock.tell(sender.uid, ">", node.uid, message)
        self._give(node, events.Heard(sender.uid, message))  # type: ignore[arg-type]
