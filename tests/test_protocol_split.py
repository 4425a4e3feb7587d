"""Ways through others, and what a peer does when half of a large view is cut off."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Collection

import pytest
from transcript import Town

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.events import Heard, Linked, Tick, Unlinked
from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.messages import Status, Unreachable
from lightning_chaos.protocol.routes import Routes
from lightning_chaos.protocol.standing import Role
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Member, Uid, View, pair_of

UIDS = tuple(f"{name}/1" for name in "abcdefgh")
ME = UIDS[0]


def far(evidence: Evidence, firsts: Collection[Uid], uids: Collection[Uid]) -> dict[Uid, int]:
    """Over how many links each is reached from these, which are 0 away."""
    found = dict.fromkeys(firsts, 0)
    queue = deque(firsts)
    while queue:
        here = queue.popleft()
        for uid in uids:
            dead = uid in evidence.dead or uid == ME
            if uid not in found and not dead and not evidence.denied(pair_of(here, uid)):
                found[uid] = found[here] + 1
                queue.append(uid)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_a_message_takes_the_shortest_way_that_nobody_denies(seed: int) -> None:
    rng = random.Random(seed)
    evidence, linked = Evidence(ME, Timeouts(1.0)), dict.fromkeys(UIDS[1:])
    routes, within = Routes(ME, linked.keys(), evidence), dict.fromkeys(UIDS).keys()
    for _ in range(12):
        uid = rng.choice(UIDS[1:])
        match rng.randrange(5):
            case 0 if uid in linked:
                del linked[uid]
                evidence.unlinked(uid, "reset")
            case 1:
                linked[uid] = None
                evidence.linked(0.0, uid)
            case 2 if rng.random() < 0.2:
                evidence.declare_dead(uid, "gone")
            case _:
                others = [u for u in UIDS if u != uid]
                evidence.others_say(0.0, uid, rng.sample(others, rng.randrange(7)))
        direct = [u for u in within if u in linked]
        reached = far(evidence, direct, within)
        for to in UIDS[1:]:
            hop = routes.hop(to, within)
            assert (hop is None) == (to not in reached)
            if hop is not None:
                assert hop in direct
                assert far(evidence, [hop], within)[to] == reached[to]


def calls_of_a_beat(members: int) -> int:
    """How often Python calls something in a tick with a heartbeat while half of all are lost."""
    all_ = [Member(f"n{i:03}", 1, "127.0.0.1", i + 1) for i in range(members)]
    uids = tuple(m.uid for m in all_)
    peer = Membership(all_[0], run="r")
    peer._standing.view = View("r", 0, 1, tuple(all_), (), 0, mesh_plan(uids))
    peer._standing.role = Role.MEMBER
    near, away = all_[1 : members // 2], uids[members // 2 :]
    for member in all_[1:]:
        peer.step(1.0, Linked(member))
    for uid in away:
        peer.step(1.0, Unlinked(uid, "reset"))
    for member in near:
        peer.step(1.0, Heard(member.uid, Unreachable(1, away)))
    peer.step(3.5, Tick())
    for member in near:
        peer.step(3.5, Heard(member.uid, Status(1, 0, unreachable=away)))
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        peer.step(3.8, Tick())
    finally:
        sys.setprofile(None)
    return calls


def test_what_a_split_costs_a_peer_grows_with_members_not_with_pairs() -> None:
    assert calls_of_a_beat(80) < 2.5 * calls_of_a_beat(40)


def test_who_can_be_reached_is_not_dead_for_a_namesake_that_speaks() -> None:
    town = Town()
    town.play("cluster a b c")
    town.play("cut b c")
    namesake = Member("c", 99, "127.0.0.9", 1)
    town.nodes["b"].step(town.now, Linked(namesake))
    town.play("wait 2")
    assert town.uids["c"] not in town.nodes["b"]._standing.evidence.dead
    view = town.nodes["b"].view
    assert view is not None
    assert [m.node for m in view.members] == ["a", "b", "c"]
