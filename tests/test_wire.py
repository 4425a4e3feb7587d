"""Whatever comes over the wire, a peer takes it or refuses it: it neither dies nor fills up."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_stage import NODES, UIDS, VIEWS, A, B, C, D, Stage
from wire_values import as_plain, plain_values, spoilt

from lightning_chaos.collective.frames import Greeting, unpack_greeting
from lightning_chaos.errors import WireError
from lightning_chaos.planning.values import ReducePlan, Tree
from lightning_chaos.protocol import local
from lightning_chaos.protocol import messages as m
from lightning_chaos.protocol.events import FromWorker, Tick
from lightning_chaos.protocol.ranges import MOST_HOPS
from lightning_chaos.protocol.standing import Role
from lightning_chaos.protocol.values import (
    Ballot,
    Decision,
    Member,
    OpId,
    Proposal,
    Report,
    View,
)
from lightning_chaos.replication.wire import AnyPull, decode_pull
from lightning_chaos.skin.round_header import RoundHeader, decode_header

DECODERS: dict[Any, Callable[[bytes], Any]] = {
    m.AnyMessage: m.decode,
    local.AnyLocal: local.decode_local,
    AnyPull: decode_pull,
    Greeting: unpack_greeting,
    RoundHeader: decode_header,
}


def likely(kind: Any) -> st.SearchStrategy[Any] | None:
    """Names that mean something here, and views that could be."""
    if kind is msgspec.inspect.StrType:
        return st.sampled_from([*UIDS, "r", "a", ""])
    if kind is View:
        return st.sampled_from([as_plain(one) for one in VIEWS])
    if kind is Member:
        return st.sampled_from([as_plain(node) for node in NODES])
    if kind is Tree:
        return st.just(as_plain(Tree(0)))
    return None


VALUES = {kind: plain_values(kind, likely) for kind in DECODERS}

# ---- what is none is refused -------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_bytes_are_a_message_or_refused(data: bytes) -> None:
    for decode in DECODERS.values():
        with contextlib.suppress(WireError):
            decode(data)


@pytest.mark.parametrize("kind", DECODERS, ids=lambda kind: DECODERS[kind].__name__)
@given(data=st.data())
def test_a_message_with_a_part_that_cannot_be_is_one_or_refused(
    kind: Any, data: st.DataObject
) -> None:
    value = data.draw(spoilt(VALUES[kind]))
    with contextlib.suppress(WireError):
        DECODERS[kind](msgspec.msgpack.encode(value))


def report(**but: Any) -> Report:
    """Of a worker that holds the second of three chunks; made without being looked at."""
    fields = {
        **{"finished": OpId(3, 0), "keeps": True, "current": OpId(4, 0), "held": (1,)},
        **{"chunks": 3, "contributors": (A.uid,), "begun_round": 4, "plan": 7},
    }
    return FakeReport(*(fields | but).values())  # type: ignore[return-value]


class FakeReport(msgspec.Struct, frozen=True, array_like=True):
    """Looks like a report on the wire."""

    finished: OpId
    keeps: bool
    current: OpId | None
    held: tuple[int, ...]
    chunks: int
    contributors: tuple[str, ...]
    begun_round: int
    plan: int


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (m.Carry(A.uid, B.uid, MOST_HOPS + 1, b""), "<= 16"),
        (m.Carry(A.uid, B.uid, 10**9, b""), "<= 16"),
        (m.Carry(A.uid, B.uid, 0, b""), ">= 1"),
        (m.Status(-1, 0), ">= 0"),
        (m.Status(1, -2), ">= -1"),
        (m.Status(1, 0, allows=math.nan), "float"),
        (m.Status(1, 0, allows=math.inf), "float"),
        (m.Status(1, 0, sent=2**32), "<= 4294967295"),
        (m.Offer(Ballot(2**63, A.uid)), "<= 4611686018427387904"),
        (m.AskCommit(2**63), "<= 4611686018427387904"),
        (m.Introduce((A,) * 5000), "length <= 4096"),
        (m.Unreachable(1, (A.uid,) * 5000), "length <= 4096"),
        (m.Ack(Ballot(), (), report(chunks=-1)), ">= 0"),
        (m.Ack(Ballot(), (), report(held=(-1,))), ">= 0"),
        (m.Ack(Ballot(), (), report(held=(3,))), "chunk 3 of 3"),
        (m.Ack(Ballot(), (), report(held=(1, 1))), "not in order"),
        (m.Ack(Ballot(), (), report(current=None)), "chunk 1 of 3"),
        (m.Ack(Ballot(), (), report(begun_round=-2)), ">= -1"),
        (
            m.Commit(
                Proposal(Ballot(), 1, VIEWS[1], False, ""),
                Decision(OpId(1, 0), (), (), {-1: A.uid}, (), 2),
            ),
            ">= 0",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, m.Message) else value,
)
def test_numbers_that_cannot_be_are_refused_in_one_line(message: m.Message, why: str) -> None:
    with pytest.raises(WireError, match="not a message of protocol") as refusal:
        m.decode(m.encode(message))
    assert why in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "said",
    [
        local.Frozen(Ballot(), report(held=(9,))),
        local.Begun(0, -5),
        local.Pulling(-1, 10),
        local.Late("4.0", math.nan, {}),
        local.Late("4.0", 1.0, {A.uid: -1}),
        local.Allowance(math.inf),
        local.Measured({}, -1),
    ],
    ids=lambda said: type(said).__name__,
)
def test_a_worker_that_says_what_cannot_be_is_not_understood(said: local.Local) -> None:
    with pytest.raises(WireError, match="not a message between peer and worker"):
        local.decode_local(local.encode_local(said))


# ---- what is one kills nobody ------------------------------------------------------------------


ROLES = {
    Role.SEARCHING: D,
    Role.NEWCOMER: D,
    Role.LEARNER: D,
    Role.MEMBER: B,
}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.value)
@given(data=st.data())
def test_no_message_kills_a_peer(role: Role, data: st.DataObject) -> None:
    stage = Stage(ROLES[role], role)
    others = [node for node in NODES if node is not ROLES[role]]
    for _ in range(data.draw(st.integers(1, 8))):
        if data.draw(st.booleans()):
            stage.play(Tick())
        value = data.draw(VALUES[m.AnyMessage])
        try:
            message = m.decode(msgspec.msgpack.encode(value))
        except WireError:
            continue
        stage.hear(data.draw(st.sampled_from(others)), message)


@given(data=st.data())
def test_no_word_of_its_worker_kills_a_peer(data: st.DataObject) -> None:
    stage = Stage(B, Role.MEMBER)
    for _ in range(data.draw(st.integers(1, 8))):
        value = data.draw(VALUES[local.AnyLocal])
        try:
            said = local.decode_local(msgspec.msgpack.encode(value))
        except WireError:
            continue
        stage.play(FromWorker(said))
        stage.play(Tick())


def test_a_view_that_its_plan_does_not_serve_is_not_taken() -> None:
    stage = Stage(B, Role.MEMBER)
    loop = ReducePlan(3, Tree(0), 0, (Tree(0, (0, 2, 1)),), (1,))
    twice = msgspec.structs.replace(VIEWS[1], epoch=3, members=(B, B, C))
    for wrong in (msgspec.structs.replace(VIEWS[1], epoch=3, plan=loop), twice):
        stage.hear(A, m.Commit(Proposal(Ballot(2, A.uid), 2, wrong, True, "")))
        assert stage.peer.view == VIEWS[1]
    right = msgspec.structs.replace(VIEWS[1], epoch=3)
    stage.hear(A, m.Commit(Proposal(Ballot(2, A.uid), 2, right, True, "")))
    assert stage.peer.view == right
