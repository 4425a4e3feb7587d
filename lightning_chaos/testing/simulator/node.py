"""One incarnation of a simulated node: its peer, its worker, and what is on the way to them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from lightning_chaos.protocol import events
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.standing import Role
from lightning_chaos.protocol.values import Member, Uid
from lightning_chaos.testing.simulator.worker import Worker


@dataclass(eq=False)
class Node:
    """Peer and worker of one incarnation."""

    me: Member
    peer: Membership
    worker: Worker
    peer_alive: bool = True
    worker_alive: bool = True
    paused_until: float = 0.0
    """The peer's process is stopped until then."""
    mail: deque[events.Event] = field(default_factory=deque)
    """What the peer has not taken in yet."""
    wanted: dict[Uid, float] = field(default_factory=dict)
    """Whom to hold a control connection to, and since when; infinity once reported as down."""
    up: set[Uid] = field(default_factory=set)
    """Of whom Linked was the last report."""
    missing: set[Uid] = field(default_factory=set)
    """Workers whose data link was lost and not made anew."""
    given_up: set[Uid] = field(default_factory=set)
    """Workers to which its view has no link."""
    to_worker_at: float = 0.0
    to_peer_at: float = 0.0
    search_at: float = 0.0

    @property
    def uid(self) -> Uid:
        """Identity of the incarnation."""
        return self.me.uid

    @property
    def name(self) -> str:
        """Of the node."""
        return self.me.node

    @property
    def member(self) -> bool:
        """It takes part in the run, as far as its own peer knows."""
        return self.peer_alive and self.peer.role in (Role.MEMBER, Role.LEAVING)


Nodes = dict[Uid, Node]
"""Every incarnation of the run so far, oldest first."""
