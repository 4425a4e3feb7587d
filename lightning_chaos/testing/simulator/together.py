"""A cluster from the begin: its members hold one view and all links, without a join."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol import local
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.standing import Role
from lightning_chaos.protocol.values import Member, View, pair_of
from lightning_chaos.testing.simulator.world import World


def begin_together(world: World, names: Sequence[str]) -> None:
    """These are members of one view, linked to all that they can reach, and begin to train.

    Raises:
        PlanError: paths do not join them all.
    """
    nodes = [world.new(name) for name in names]
    members = tuple(node.me for node in nodes)
    for node in nodes:
        node.wanted = {m.uid: 0.0 for m in members if m is not node.me}
    apart = []
    for node, other in combinations(nodes, 2):
        if world.paths.joined(node.name, other.name):
            world.control.join(node, other, 0.0, 0.0)
            node.up.add(other.uid)
            other.up.add(node.uid)
        else:
            apart.append(pair_of(node.uid, other.uid))
    plan = mesh_plan([m.uid for m in members], apart)
    view = View("r", 0, 1, members, (), 0, plan, tuple(sorted(apart)))
    world.invariants.begun_together(nodes[0], view)
    for node in nodes:
        linked = [other.me for other in nodes if other.uid in node.up]
        _seat(node.peer, view, linked, node.time(0.0))
        node.worker.hear(local.Standing(node.me, False, view, -1))


def _seat(peer: Membership, view: View, linked: Sequence[Member], now: float) -> None:
    """Put a fresh peer into the state of a founder of a view of several."""
    standing = peer._standing
    standing.now, standing.view, standing.role = now, view, Role.MEMBER
    for member in linked:
        standing.linked[member.uid] = member
        standing.evidence.linked(now, member.uid)
    for member in view.members:
        if member is not peer.me and member.uid not in standing.linked:
            standing.evidence.unlinked(member.uid, "there is no path to it")
