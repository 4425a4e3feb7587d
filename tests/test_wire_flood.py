"""Whoever talks to a peer, and however much: it remembers up to a bound."""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Iterator

import msgspec
import pytest
from wire_stage import STRANGER, VIEWS, A, B, C, D, Stage

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol import messages as m
from lightning_chaos.protocol.evidence import MOST_DEAD
from lightning_chaos.protocol.islands import MOST_KNOWN
from lightning_chaos.protocol.routes import MOST_STRANGERS
from lightning_chaos.protocol.standing import Role
from lightning_chaos.protocol.values import Ballot, Lineage, Member, Proposal, View


def nobody(number: int) -> Member:
    return Member(f"nobody{number}", number, "127.0.0.1", 1)


def carried(number: int, message: m.Message) -> m.Carry:
    return m.Carry(nobody(number).uid, B.uid, 3, m.encode(message))


def island(number: int) -> View:
    someone = nobody(number)
    plan = mesh_plan((someone.uid,))
    return View("r", 0, 1, (someone,), (), 0, plan, lineage=Lineage(someone.uid))


FLOODS: dict[str, Callable[[int], m.Message]] = {
    "carried heartbeats": lambda i: carried(i, m.Status(2, 1)),
    "carried complaints": lambda i: carried(i, m.Unreachable(2, (A.uid,))),
    "carried requests": lambda i: carried(i, m.JoinRequest(nobody(i), ())),
    "for others": lambda i: m.Carry(nobody(i).uid, C.uid, 3, b""),
    "requests in others' names": lambda i: m.JoinRequest(nobody(i), (), (A.uid,)),
    "leaves in others' names": lambda i: m.LeaveRequest(nobody(i).uid),
    "last words": lambda i: m.LastWord(nobody(i).uid, "it says so"),
    "proposals in others' names": lambda i: m.Prepare(
        Proposal(Ballot(2, nobody(i).uid), 2, msgspec.structs.replace(VIEWS[1], epoch=3), True, "")
    ),
    "lineages": lambda i: m.ViewNews(island(i)),
    "introductions": lambda i: m.Introduce((nobody(i),)),
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("role", [Role.SEARCHING, Role.MEMBER], ids=lambda role: role.value)
def test_a_flood_of_messages_is_remembered_up_to_a_bound(role: Role, flood: str) -> None:
    stage, say = Stage(B if role is Role.MEMBER else D, role), FLOODS[flood]
    most = MOST_DEAD if flood == "last words" else max(MOST_STRANGERS, MOST_KNOWN) + 16
    for number in range(1, most):
        stage.hear(STRANGER, say(number))
    full = size(stage.peer)
    for number in range(most, most + 200):
        stage.hear(STRANGER, say(number))
    assert size(stage.peer) < full + 50, "it remembers what each of 200 more said"


def size(root: object) -> int:
    """Objects that this one holds, counted once."""
    return sum(1 for _ in _reachable(root))


def _reachable(root: object) -> Iterator[object]:
    seen, queue = {id(root)}, [root]
    apart = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)
    while queue:
        one = queue.pop()
        yield one
        for other in gc.get_referents(one):
            if id(other) not in seen and not isinstance(other, apart):
                seen.add(id(other))
                queue.append(other)
