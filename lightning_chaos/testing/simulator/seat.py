"""How a peer comes to be a member of a view from the begin, without a join."""

from __future__ import annotations

from collections.abc import Iterable

from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.standing import Role
from lightning_chaos.protocol.values import Member, View


def seat(peer: Membership, view: View, linked: Iterable[Member], now: float) -> None:
    """Put it into the state of a founder of a view of several.

    Args:
        peer: fresh.
        view: that it is a member of.
        linked: to whom it has a control connection.
        now: its clock, seconds.
    """
    standing = peer._standing
    standing.now, standing.view, standing.role = now, view, Role.MEMBER
    for member in linked:
        standing.linked[member.uid] = member
        standing.evidence.linked(now, member.uid)
    for member in view.members:
        if member is not peer.me and member.uid not in standing.linked:
            standing.evidence.unlinked(member.uid, "there is no path to it")
