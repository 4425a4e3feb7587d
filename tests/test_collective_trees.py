"""Operations where links are missing: sums go up trees, results come down, over links alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from collective_failures import random_links
from collective_network import Network, Step, member, program, view_of
from msgspec.structs import replace

from lightning_chaos.collective.actions import Action, Misbehaved, Send, Verdict
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.collective.frames import MAX_PAYLOAD_BYTES, Frame, FrameKind, tag_of
from lightning_chaos.collective.layout import HEADER, Chunk, Layout
from lightning_chaos.collective.roots import Part, pack_parts
from lightning_chaos.protocol.values import Decision, OpId

A, B, C, D = (member(name).uid for name in "abcd")
FIRST = OpId(0, 0)
SHAPES = {
    "line of three": ("abc", ("ac",)),
    "line of five": ("abcde", ("ac", "ad", "ae", "bd", "be", "ce")),
    "ring of five": ("abcde", ("ac", "ad", "bd", "be", "ce")),
    "star of four": ("abcd", ("ac", "ad", "cd")),
    "one link lost": ("abcd", ("ab",)),
}


def running(names: str, missing: Sequence[str], rng: random.Random, steps: list[Step]) -> Network:
    network = Network(names, rng, steps)
    network.news[1] = (view_of(1, names, missing=missing), None)
    for node in network.nodes.values():
        network.install(node, 1)
    return network


@pytest.mark.parametrize("shape", SHAPES)
def test_members_hold_the_bits_of_the_sums_along_the_trees(shape: str) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        network = running(*SHAPES[shape], rng, program(rng, 4))
        network.run()
        network.check()


def test_whatever_links_join_them_members_hold_the_same_bits() -> None:
    for seed in range(150):
        rng = random.Random(50_000 + seed)
        network = running(*random_links(rng), rng, program(rng, 3))
        network.run()
        network.check()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_chunk_costs_one_frame_each_way_on_every_link_of_its_tree(shape: str) -> None:
    names, missing = SHAPES[shape]
    step = Step(FIRST, 600, ((0, 1200), (1200, 1200)))
    network = running(names, missing, random.Random(5), [step])
    network.run()
    network.check()
    plan = network.news[1][0].plan
    each = (1 + 2 * len(plan.trees)) * (len(names) - 1)
    assert network.sent == {FrameKind.CONTRIBUTION: each, FrameKind.RESULT: each}


# ---- one exchange, frames by hand ------------------------------------------------------------

LINE = ("ac",)
"""a - b - c: the header and chunk 2 (of 6 floats) are rooted at b, chunks 1 and 3 at a and c."""


def begun(me: str, names: str = "abc", missing: tuple[str, ...] = LINE) -> Exchange:
    """A member in an operation with a vector of twelve floats."""
    exchange = Exchange(me, lambda: 5.0)
    exchange.install(view_of(1, names, missing=missing), None)
    exchange.begin(FIRST, "gradients", b"", np.full(12, 1, np.float32), 1.0)
    return exchange


def frame(kind: FrameKind, chunk: int, **values: float) -> Frame:
    """Of the line; a contribution of one member if nothing else is said."""
    offset, length = ((0, 10), (0, 12), (12, 24), (36, 12))[chunk]
    fields = {"offset": offset, "length": length, "weight": 1.0, **values}
    return Frame(kind, tag_of("gradients"), 1, FIRST, chunk, **fields)  # type: ignore[arg-type]


def arrive(exchange: Exchange, sender: str, head: Frame, payload: bytes) -> list[Action]:
    """What a payload that comes whole makes the exchange do."""
    exchange.actions()
    landing = exchange.place(sender, head)
    assert not isinstance(landing, Verdict), exchange.actions()
    assert landing.memory is not None
    landing.memory[:] = payload
    exchange.complete(sender, head, landing)
    return exchange.actions()


def sent(actions: list[Action]) -> list[tuple[str, FrameKind, int, float, bytes]]:
    return [
        (a.to, a.frame.kind, a.frame.chunk, a.frame.weight, bytes(a.payload))
        for a in actions
        if isinstance(a, Send)
    ]


def refused(exchange: Exchange, sender: str, head: Frame) -> str:
    """Why that frame accuses its sender."""
    exchange.actions()
    assert exchange.place(sender, head) is Verdict.DROP
    (accused,) = exchange.actions()
    assert isinstance(accused, Misbehaved)
    assert accused.uid == sender
    return accused.reason


GIVES, RESULT = FrameKind.CONTRIBUTION, FrameKind.RESULT


def test_a_member_in_between_sends_one_sum_up_and_every_result_on() -> None:
    exchange = begun(B)
    actions = exchange.actions()
    assert sent(actions) == []  # it lacks the sum of somebody below it in every tree
    gift = np.full(3, 2, np.float32)
    actions = arrive(exchange, C, frame(GIVES, 1, weight=2.0), gift.tobytes())
    assert sent(actions) == [(A, GIVES, 1, 3.0, (gift + 1).tobytes())]
    actions = arrive(exchange, A, frame(RESULT, 1, weight=4.0), gift.tobytes())
    assert sent(actions) == [(C, RESULT, 1, 4.0, gift.tobytes())]
    assert exchange.report(0).held == (1,)


@pytest.mark.parametrize(
    ("sender", "head", "told"),
    [
        (A, frame(GIVES, 1), "not this member's to add up"),
        (C, frame(GIVES, 3), "not this member's to add up"),
        (C, frame(RESULT, 1), f"must come from {A}"),
        (A, frame(RESULT, 2), "must come from nobody"),
        (A, frame(RESULT, 1), "before this member contributed"),
        (D, frame(GIVES, 1), "comes from no contributor"),
        (C, frame(GIVES, 1, length=16), "has 16 bytes at 0, expected are 12 at 0"),
        (C, frame(GIVES, HEADER, length=MAX_PAYLOAD_BYTES // 3), "bytes at 0, expected are 0"),
    ],
)
def test_a_frame_that_comes_against_the_tree_accuses_its_sender(
    sender: str, head: Frame, told: str
) -> None:
    assert told in refused(begun(B), sender, head)


def test_a_sum_takes_no_more_memory_than_the_children_give() -> None:
    exchange = begun(B, "abcd", ("ac", "ad", "bd"))
    limit = 2 * (MAX_PAYLOAD_BYTES // 4)
    assert f"{limit} bytes" in refused(exchange, C, frame(GIVES, HEADER, length=limit))
    operation = exchange._ops.current
    assert operation is not None
    attempt = operation.attempt
    given = sum(len(attempt.place(c).children) * c.length for c in attempt.layout.chunks)
    assert len(attempt.landing) == given


@pytest.mark.parametrize(
    ("parts", "weight", "told"),
    [
        ([Part("gradients", 48, 1.0, b"")], 1.0, "header of 1 members, contributors are 2"),
        ([Part("gradients", 48, 1.0, b"")] * 3, 3.0, "header of 3 members"),
        ([Part("gradients", 48, 1.0, b"")] * 2, 1.0, "says weight 2.0, not 1.0"),
        (
            [Part("gradients", 48, 1.0, b""), Part("gradients", 52, 1.0, b"")],
            2.0,
            "vector of 52 bytes, expected are 48",
        ),
    ],
)
def test_a_headers_sum_that_contradicts_itself_accuses_its_sender(
    parts: list[Part], weight: float, told: str
) -> None:
    exchange = begun(B, "abcd", ("ac", "ad", "bd"))
    payload = pack_parts(parts)
    head = frame(GIVES, HEADER, length=len(payload), weight=weight)
    (accused,) = arrive(exchange, C, head, payload)
    assert isinstance(accused, Misbehaved)
    assert told in accused.reason


def test_who_may_wait_for_others_itself_is_late_only_after_more_timeouts() -> None:
    at_the_end = begun(A, "abcd", ("ac", "ad", "bd")).late()
    assert at_the_end == (FIRST, 0.0, {B: 3})
    between = begun(B, "abcd", ("ac", "ad", "bd")).late()
    assert between == (FIRST, 0.0, {A: 1, C: 2})


def test_who_has_given_all_names_the_one_that_keeps_the_result_from_it() -> None:
    """In the chain a-b-c-d what is made at c may be kept from d by a, by b and by c."""
    assert begun(D, "abcd", ("ac", "ad", "bd")).late() == (FIRST, 0.0, {C: 3})


def test_lateness_counts_from_the_last_frame_that_came() -> None:
    now = 5.0
    exchange = Exchange(A, lambda: now)
    exchange.install(view_of(1, "abc"), None)
    exchange.begin(FIRST, "gradients", b"", np.full(12, 1, np.float32), 1.0)
    now = 9.0
    payload = pack_parts([Part("gradients", 48, 1.0, b"")])
    arrive(exchange, B, frame(GIVES, HEADER, length=len(payload)), payload)
    now = 10.0
    assert exchange.late() == (FIRST, 1.0, {B: 1, C: 1})


def test_how_far_debtors_are_is_worked_out_once_for_each_tree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large model has thousands of chunks, and this is asked five times a second."""
    asked = 0
    height = Layout.height

    def counted(self: Layout, chunk: Chunk, uid: str) -> int:
        nonlocal asked
        asked += 1
        return height(self, chunk, uid)

    monkeypatch.setattr(Layout, "height", counted)
    exchange = Exchange(A, lambda: 5.0)
    exchange.install(view_of(1, "abc"), None)
    buckets = [(12 * i, 12) for i in range(50)]
    exchange.begin(FIRST, "gradients", b"", np.zeros(150, np.float32), 1.0, buckets)
    assert exchange.late() == (FIRST, 0.0, {B: 1, C: 1})
    assert asked <= 2 * 3


def test_lateness_counts_from_the_attempt_under_way() -> None:
    now = 5.0
    exchange = Exchange(A, lambda: now)
    exchange.install(view_of(1, "abc"), None)
    exchange.begin(FIRST, "barrier", b"")
    exchange.freeze()
    now = 9.0
    again = Decision(exchange.last, (), (), {}, (), 0)
    exchange.install(view_of(2, "ab"), again)
    now = 10.0
    assert exchange.late() == (FIRST, 1.0, {B: 1})


# ---- one exchange, after a failure -----------------------------------------------------------


def holding_two() -> tuple[Exchange, list[bytes]]:
    """b of the line, frozen with the results of chunks 0 and 2, and what it holds."""
    exchange = begun(B)
    header = pack_parts([Part("gradients", 48, 1.0, b"")])
    for sender in (A, C):
        arrive(exchange, sender, frame(GIVES, HEADER, length=len(header)), header)
        done = arrive(exchange, sender, frame(GIVES, 2), bytes(24))
    assert exchange.report(0).held == (0, 2)
    held = [sent(done)[0][-1], pack_parts([Part("gradients", 48, 1.0, b"")] * 3)]
    exchange.freeze()
    exchange.actions()
    return exchange, held[::-1]


def under(epoch: int, head: Frame) -> Frame:
    return replace(head, epoch=epoch)


def test_one_behind_passes_on_what_it_holds_at_once_and_the_rest_as_it_comes() -> None:
    exchange, (header, second) = holding_two()
    found = Decision(FIRST, (A,), (B, C), {}, (), 1)
    exchange.install(view_of(2, "abc", missing=LINE), found)
    assert sent(exchange.actions()) == [
        (C, RESULT, HEADER, 3.0, header),
        (C, RESULT, 2, 3.0, second),
    ]
    assert exchange.place(A, under(2, frame(RESULT, 2, weight=3.0))) is Verdict.DROP
    assert exchange.actions() == []  # not asked for, and nobody's fault
    for chunk in (1, 3):
        actions = arrive(exchange, A, under(2, frame(RESULT, chunk, weight=3.0)), bytes(12))
        assert sent(actions) == [(C, RESULT, chunk, 3.0, bytes(12))]
    assert exchange.last == FIRST


def test_held_chunks_pass_through_those_who_lack_them_and_the_others_are_made_again() -> None:
    exchange, (_, second) = holding_two()
    kept = Decision(exchange.last, (), (), {0: B, 1: C, 2: B}, (A, B, C), 1)
    exchange.install(view_of(2, "abc", missing=LINE), kept)
    actions = sent(exchange.actions())
    assert [(to, kind, chunk) for to, kind, chunk, *_ in actions] == [
        (A, RESULT, HEADER),
        (C, RESULT, HEADER),
        (A, RESULT, 2),
        (C, RESULT, 2),
    ]
    actions = arrive(exchange, C, under(2, frame(RESULT, 1, weight=3.0)), bytes(12))
    assert sent(actions) == [(A, RESULT, 1, 3.0, bytes(12))]
    actions = arrive(exchange, A, under(2, frame(GIVES, 3)), second[:12])
    ((to, kind, chunk, weight, _),) = sent(actions)
    assert (to, kind, chunk, weight) == (C, GIVES, 3, 2.0)


def test_under_another_plan_nothing_that_is_held_stays() -> None:
    exchange, _ = holding_two()
    exchange.install(view_of(2, "abc"), Decision(exchange.last, (), (), {}, (), 1))
    assert exchange.report(0).held == ()
    assert exchange.report(0).plan == view_of(2, "abc").plan.mark
