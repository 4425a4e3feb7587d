"""Operations that are begun before their contribution is there: given bucket by bucket."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from collective_network import Network, Node, Step, member, view_of

from lightning_chaos.collective.actions import Action, Finished, Misbehaved, Send, Verdict
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.collective.frames import MAX_PAYLOAD_BYTES, Frame, FrameKind, tag_of
from lightning_chaos.collective.layout import HEADER
from lightning_chaos.collective.roots import Floats
from lightning_chaos.errors import ChaosError
from lightning_chaos.protocol.values import Decision, OpId

A, B, C = (member(name).uid for name in "abc")
FIRST = OpId(0, 0)
BUCKETS = ((0, 16), (16, 16), (32, 16))


def opened(names: str = "ab", me: str = A) -> tuple[Exchange, Floats]:
    """A member that has begun an operation and given nothing, and the vector."""
    exchange = Exchange(me, lambda: 7.0)
    exchange.install(view_of(1, names), None)
    vector = np.arange(12, dtype=np.float32)
    exchange.open(FIRST, "gradients", vector, 1.0, BUCKETS)
    return exchange, vector


def sent(actions: list[Action]) -> list[tuple[FrameKind, int]]:
    """Kind and chunk of every frame that goes to somebody."""
    return [(a.frame.kind, a.frame.chunk) for a in actions if isinstance(a, Send)]


def decision(finished: OpId, **values: object) -> Decision:
    fields = {"sources": (), "behind": (), "held": {}, "contributors": (), "data_from": 0}
    return Decision(finished=finished, **{**fields, **values})  # type: ignore[arg-type]


def arrive(exchange: Exchange, sender: str, frame: Frame, payload: bytes) -> None:
    landing = exchange.place(sender, frame)
    assert not isinstance(landing, Verdict), exchange.actions()
    assert landing.memory is not None
    landing.memory[:] = payload
    exchange.complete(sender, frame, landing)


def contribution(chunk: int, offset: int, epoch: int = 1) -> Frame:
    return Frame(FrameKind.CONTRIBUTION, tag_of("gradients"), epoch, FIRST, chunk, offset, 8, 1.0)


def test_a_bucket_is_sent_when_it_is_given_and_the_header_at_the_end() -> None:
    exchange, _ = opened()
    assert sent(exchange.actions()) == []
    exchange.give(1)
    assert sent(exchange.actions()) == [(FrameKind.CONTRIBUTION, 4)]
    exchange.close(b"blob")
    # a roots the header and the first half of each bucket
    assert sent(exchange.actions()) == [(FrameKind.CONTRIBUTION, 2), (FrameKind.CONTRIBUTION, 6)]
    exchange, _ = opened(me=B)
    exchange.close(b"blob")
    assert sent(exchange.actions())[0] == (FrameKind.CONTRIBUTION, HEADER)


def test_a_result_can_be_here_before_the_last_bucket_is_given() -> None:
    exchange, vector = opened()
    exchange.give(0)
    arrive(exchange, B, contribution(1, 0), np.float32([3, 4]).tobytes())
    (result,) = (a for a in exchange.actions() if isinstance(a, Send) and a.frame.kind == 2)
    assert result.payload == ((vector[:2] + np.float32([3, 4])) / 2).data.cast("B")
    assert exchange.report(0).held == (1,)
    assert exchange.late() is None


def test_frames_of_others_are_taken_before_this_member_has_anything_to_give() -> None:
    exchange, _ = opened()
    arrive(exchange, B, contribution(1, 0), bytes(8))
    assert exchange.report(0).held == ()
    exchange.give(0)
    assert exchange.report(0).held == (1,)


def test_late_counts_from_when_this_member_had_given_all() -> None:
    exchange, _ = opened()
    assert exchange.late() is None
    exchange.close(b"")
    assert exchange.late() == (FIRST, 0.0, {B: 1})


def test_a_frozen_member_sends_nothing_it_is_given_and_all_of_it_under_the_next_view() -> None:
    for names, again in (("ab", {}), ("a", {})):
        exchange, _ = opened()
        exchange.give(2)
        exchange.actions()
        exchange.freeze()
        exchange.give(0)
        assert sent(exchange.actions()) == []
        assert exchange.report(0).current == FIRST
        exchange.install(view_of(2, names), decision(exchange.last, **again))
        frames = [a.frame for a in exchange.actions() if isinstance(a, Send)]
        expected = [] if names == "a" else [2, 6]
        assert [(f.epoch, f.chunk) for f in frames] == [(2, chunk) for chunk in expected]
        exchange.close(b"")
        told = exchange.actions()
        assert any(isinstance(a, Finished) for a in told) == (names == "a")
        assert [chunk for _, chunk in sent(told)] == ([] if names == "a" else [4])


def test_an_operation_that_ends_while_frozen_is_whole_under_the_next_view() -> None:
    exchange, vector = opened()
    exchange.freeze()
    exchange.give(1)
    exchange.close(b"mine")
    assert sent(exchange.actions()) == []
    exchange.install(view_of(2, "a"), decision(exchange.last))
    (finished,) = (a for a in exchange.actions() if isinstance(a, Finished))
    assert finished.blobs == (b"mine",)
    np.testing.assert_array_equal(finished.result, vector)


def test_an_operation_opened_while_frozen_gives_what_it_has_when_the_freeze_ends() -> None:
    exchange = Exchange(A, lambda: 0.0)
    exchange.install(view_of(1, "ab"), None)
    exchange.freeze()
    exchange.open(FIRST, "gradients", np.ones(12, np.float32), 1.0, BUCKETS)
    exchange.give(1)
    assert exchange.report(0).current is None
    exchange.install(view_of(2, "ab"), decision(exchange.last))
    assert sent(exchange.actions()) == [(FrameKind.CONTRIBUTION, 4)]


def test_kept_results_are_not_made_again_by_a_bucket_given_later() -> None:
    exchange, _ = opened()
    exchange.give(0)
    arrive(exchange, B, contribution(1, 0), bytes(8))
    exchange.freeze()
    exchange.actions()
    kept = decision(exchange.last, held={1: A}, contributors=(A, B))
    exchange.install(view_of(2, "ab"), kept)
    assert sent(exchange.actions()) == [(FrameKind.RESULT, 1), (FrameKind.CONTRIBUTION, 2)]
    exchange.give(2)
    exchange.give(1)
    assert [chunk for _, chunk in sent(exchange.actions())] == [6, 4]


def test_a_result_without_this_members_contribution_accuses_its_root() -> None:
    exchange, _ = opened()
    early = Frame(FrameKind.RESULT, tag_of("gradients"), 1, FIRST, 2, 8, 8, 2.0)
    assert exchange.place(B, early) is Verdict.DROP
    (accused,) = (a for a in exchange.actions() if isinstance(a, Misbehaved))
    assert "before this member contributed" in accused.reason
    exchange.give(0)
    assert not isinstance(exchange.place(B, early), Verdict)


def test_what_is_out_of_turn_is_refused() -> None:
    exchange, _ = opened()
    with pytest.raises(ValueError, match="out of turn"):
        exchange.begin(OpId(0, 1), "barrier", b"")
    exchange.give(0)
    for bucket in (0, 3):
        with pytest.raises(ValueError, match=f"bucket {bucket} of operation"):
            exchange.give(bucket)
    with pytest.raises(ChaosError, match="Gather less at once"):
        exchange.close(bytes(MAX_PAYLOAD_BYTES // 2))
    with pytest.raises(ValueError, match="no operation is open"):
        exchange.give(1)
    with pytest.raises(ValueError, match="no operation is open"):
        Exchange(A, lambda: 0.0).close(b"")


# ---- failures in the middle ------------------------------------------------------------------


def half_given(node: Node) -> bool:
    """Some of its buckets have left, others have not got their values."""
    step = node.steps[node.at - 1]
    return node.open and 0 < len(node.left) < len(step.buckets or ())


def test_a_member_that_dies_between_its_first_and_last_bucket_leaves_no_trace() -> None:
    hits: Counter[str] = Counter()
    cut = tuple((at, 24) for at in range(0, 96, 24))
    steps = [Step(OpId(round_, 0), 24, cut) for round_ in range(3)]
    for seed in range(800):
        rng = random.Random(40_000 + seed)
        names = "abcd"[: rng.randint(2, 4)]
        network = Network(names, rng, steps)
        network.news[1] = (view_of(1, names), None)
        for node in network.nodes.values():
            network.install(node, 1)
        for _ in range(rng.randrange(5, 120)):
            network.step()
        while not (halves := [node for node in network.nodes.values() if half_given(node)]):
            if not network.step():
                break
        if not halves:
            continue
        dies = rng.choice(halves)
        hits["others in it"] += any(node is not dies and node.open for node in halves)
        hits["results were there"] += any(
            node.exchange.report(0).held for node in network.nodes.values() if node.open
        )
        network.kill(dies.uid)
        for node in rng.sample(list(network.nodes.values()), len(network.nodes)):
            for _ in range(rng.randrange(6)):
                network.step()
            network.freeze(node)
        for _ in range(rng.randrange(8)):
            network.step()
        network.decide(2, list(network.nodes))
        hits["frozen in backward"] += any(node.open for node in network.nodes.values())
        for node in rng.sample(list(network.nodes.values()), len(network.nodes)):
            for _ in range(rng.randrange(8)):
                network.step()
            network.install(node, 2)
        network.run()
        network.check()
        op = dies.steps[dies.at - 1].op
        for node in network.nodes.values():
            assert node.finished[op][0].view.uids == tuple(network.nodes)
    assert all(hits[what] > 20 for what in ("others in it", "frozen in backward")), hits
    assert hits["results were there"] > 20, hits
