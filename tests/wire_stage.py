"""A peer in one role, linked to others and to a stranger, for tests of what it hears."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol import local
from lightning_chaos.protocol import messages as m
from lightning_chaos.protocol.events import Action, Heard, Linked, Send, Tell
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.standing import Role
from lightning_chaos.protocol.values import Ballot, Lineage, Member, Proposal, View

NODES = [Member(name, i + 1, "127.0.0.1", 5000 + i) for i, name in enumerate("abcdx")]
A, B, C, D, STRANGER = NODES
UIDS = [node.uid for node in NODES]


def view(epoch: int, members: Iterable[Member], learners: Iterable[Member] = ()) -> View:
    members = tuple(members)
    plan = mesh_plan(tuple(node.uid for node in members))
    return View("r", 0, epoch, members, tuple(learners), 1, plan, lineage=Lineage(A.uid))


VIEWS = [view(1, [A]), view(2, [A, B, C], [D]), view(3, [B, C]), view(3, [A, B, C, D])]


class Stage:
    """One peer in one role, linked to others and to a stranger."""

    def __init__(self, me: Member, role: Role) -> None:
        self.peer = Membership(me, run="r")
        self.now = 0.0
        for other in NODES:
            if other is not me:
                self.play(Linked(other))
        if role is not Role.SEARCHING:
            self.hear(A, m.ViewNews(VIEWS[0]))
        if role not in (Role.SEARCHING, Role.NEWCOMER):
            self.hear(A, m.Commit(Proposal(Ballot(1, A.uid), 1, VIEWS[1], True, "they join")))
        assert self.peer.role is role

    def hear(self, sender: Member, message: m.Message) -> None:
        self.play(Heard(sender.uid, message))  # type: ignore[arg-type]

    def play(self, event: Any) -> None:
        self.now += 0.01
        for action in self.peer.step(self.now, event):
            _travels(action)


def _travels(action: Action) -> None:
    """What a peer says can be sent, and is understood."""
    match action:
        case Send(message=message):
            m.decode(m.encode(message))
        case Tell(message=said):
            local.decode_local(local.encode_local(said))
