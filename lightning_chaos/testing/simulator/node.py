"""One incarnation of a simulated node: its peer, its worker, and what is on the way to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lightning_chaos.protocol import events
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.standing import ACTIVE
from lightning_chaos.protocol.values import Member, Uid
from lightning_chaos.testing.simulator.worker import Worker

if TYPE_CHECKING:
    from lightning_chaos.testing.simulator.control import Connection


@dataclass(eq=False, slots=True)
class Lack:
    """A data link that is not there."""

    until: float
    """From then on the worker complains of it; endless once it has."""


@dataclass(eq=False, slots=True)
class Node:
    """Peer and worker of one incarnation."""

    me: Member
    peer: Membership
    worker: Worker
    rate: float = 1.0
    """How fast its clock runs."""
    ahead: float = 0.0
    """What its clock showed when the run began, seconds."""
    peer_alive: bool = True
    worker_alive: bool = True
    paused_until: float = 0.0
    """The peer's process is stopped until then."""
    mail: deque[events.Event] = field(default_factory=deque)
    """What the peer has not taken in yet."""
    links: dict[Uid, Connection] = field(default_factory=dict)
    """Control connections that stand, or are being made."""
    wanted: dict[Uid, float] = field(default_factory=dict)
    """Whom to hold a control connection to, and since when; infinity once reported as down."""
    up: set[Uid] = field(default_factory=set)
    """Of whom Linked was the last report."""
    met: set[Uid] = field(default_factory=set)
    """Workers that a view has told it to link up with."""
    lacks: dict[Uid, Lack] = field(default_factory=dict)
    """Workers to which there is no data link."""
    owed: dict[Uid, bool] = field(default_factory=dict)
    """Of whose data link the peer is told once it works; whether frames were lost on it."""
    spare: set[Uid] = field(default_factory=set)
    """Workers to which a data link was made while its view has none."""
    uid: Uid = field(init=False)
    """Identity of the incarnation."""
    name: str = field(init=False)
    """Of the node."""
    to_worker_at: float = 0.0
    to_peer_at: float = 0.0
    search_at: float = 0.0

    def __post_init__(self) -> None:
        self.uid, self.name = self.me.uid, self.me.node

    def time(self, now: float) -> float:
        """What its clock shows."""
        return self.ahead + self.rate * now

    @property
    def member(self) -> bool:
        """It takes part in the run, as far as its own peer knows."""
        return self.peer_alive and self.peer.role in ACTIVE

    @property
    def alive(self) -> bool:
        """Any part of it lives."""
        return self.peer_alive or self.worker_alive


class Nodes:
    """Every incarnation of the run so far, oldest first."""

    def __init__(self) -> None:
        self._all: dict[Uid, Node] = {}
        self._newest: dict[str, Node] = {}

    def add(self, node: Node) -> None:
        """A new incarnation."""
        self._all[node.uid] = self._newest[node.name] = node

    def newest(self, name: str) -> Node | None:
        """The newest incarnation of that node."""
        return self._newest.get(name)

    def __getitem__(self, uid: Uid) -> Node:
        return self._all[uid]

    def __contains__(self, uid: Uid) -> bool:
        return uid in self._all

    def __iter__(self) -> Iterator[Node]:
        return iter(self._all.values())
