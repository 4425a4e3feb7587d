"""Operations of one view and of planned changes: exact, the same everywhere, in any order."""

from __future__ import annotations

import random

import numpy as np
import pytest
from collective_network import Network, Step, member, program, view_of

from lightning_chaos.collective.actions import Action, AskCommit, Failed, Misbehaved, Send, Verdict
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.collective.frames import MAX_PAYLOAD_BYTES, Frame, FrameKind
from lightning_chaos.collective.layout import HEADER, Layout
from lightning_chaos.collective.roots import Part, pack_parts
from lightning_chaos.errors import ChaosError, NodeLost, OperationMismatch
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.planning.values import ReducePlan
from lightning_chaos.protocol.values import OpId

NAMES = "abcde"
A, B, C = (member(name).uid for name in "abc")


def founded(names: str, seed: int, rounds: int = 6) -> Network:
    rng = random.Random(seed)
    network = Network(names, rng, program(rng, rounds))
    network.news[1] = (view_of(1, names), None)
    for node in network.nodes.values():
        network.install(node, 1)
    return network


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5])
def test_members_hold_the_bits_of_the_sum_in_member_order(members: int) -> None:
    for seed in range(25):
        network = founded(NAMES[:members], seed)
        network.run()
        network.check()


def test_members_that_learn_of_the_view_late_leave_its_frames_unread_and_ask() -> None:
    for seed in range(25):
        rng = random.Random(seed)
        network = Network("abc", rng, program(rng, 4))
        network.news[1] = (view_of(1, "abc"), None)
        nodes = list(network.nodes.values())
        for node in nodes[1:]:
            node.gate = 0
        network.install(nodes[0], 1)
        for node in nodes[1:]:
            for _ in range(rng.randrange(10)):
                network.step()
            network.install(node, 1)
        network.run()
        network.check()
        assert len({(ask.uid, ask.epoch) for ask in network.asked}) <= 3


def test_a_planned_join_and_a_planned_leave_change_the_members_between_two_rounds() -> None:
    for seed in range(40):
        network = founded("abc", seed, rounds=8)
        joins, leaves = 3, 6
        last = max(step.op for step in network.steps if step.op.round < joins)
        network.news[2] = (view_of(2, "abcd", switch=joins), None)
        network.news[3] = (view_of(3, "acd", switch=leaves), None)
        for node in network.nodes.values():
            node.gate = joins
        leaver = network.nodes[B]
        leaver.steps = [step for step in network.steps if step.op.round < leaves]
        newcomer = network.add("d")
        newcomer.exchange.start(last)
        newcomer.at = network.steps.index(next(s for s in network.steps if s.op > last))
        newcomer.gate = 0
        pending = [(node, epoch) for node in network.nodes.values() for epoch in (2, 3)]
        while pending:
            for _ in range(network.rng.randrange(30)):
                network.step()
            node = network.rng.choice(pending)[0]
            epoch = next(epoch for n, epoch in pending if n is node)
            pending.remove((node, epoch))
            network.install(node, epoch)
            if epoch == 2:
                node.gate = leaves
        network.run()
        assert not network.accused
        assert leaver.done
        assert leaver.finished
        assert newcomer.finished
        first, *others = (network.nodes[uid] for uid in network.news[3][0].uids)
        for op, (finished, result) in first.finished.items():
            expected = 1 + (op.round >= joins) + (op.round >= leaves)
            assert finished.view.epoch == expected
            network.check_one(finished, result)
            for other in (*others, leaver):
                assert op not in other.finished or other.finished[op][1] == result


def test_a_round_without_weight_gives_zeros_and_nan_passes_through() -> None:
    for weight, value, expected in ((0.0, 0.0, 0.0), (2.0, np.nan, np.nan)):
        exchange = Exchange(A, lambda: 0.0)
        exchange.install(view_of(1, "a"), None)
        vector = np.full(3, value, np.float32)
        exchange.begin(OpId(0, 0), "gradients", b"", vector, weight)
        (finished,) = (a for a in exchange.actions() if hasattr(a, "result"))
        np.testing.assert_array_equal(finished.result, np.full(3, expected, np.float32))


def test_an_operation_is_stable_when_the_first_result_of_the_next_is_here() -> None:
    network = founded("ab", seed=0)
    a, b = network.nodes.values()
    network.steps[:] = [Step(OpId(0, 0), None, None), Step(OpId(0, 1), None, None)]
    a.steps = b.steps = network.steps
    for node in (a, b):
        node.begin()
        network.carry_out(node)
    while not (a.finished and b.finished):
        wires = [key for key, wire in network.wires.items() if wire.frames]
        network._transfer(*wires[0])
    assert a.exchange.report(0).keeps
    a.begin()
    network.carry_out(a)
    assert a.stable == b.stable == []
    b.begin()
    network.carry_out(b)
    network.run()
    assert a.stable == b.stable == [OpId(0, 0)]


def test_blobs_of_several_megabytes_are_gathered() -> None:
    network = founded("abc", seed=1)
    blobs = {uid: uid.encode() * 1_000_000 for uid in network.nodes}
    for node in network.nodes.values():
        node.at, node.steps = 1, [Step(OpId(0, 0), None, None)]
        node.exchange.begin(OpId(0, 0), "gather", blobs[node.uid])
        network.carry_out(node)
    network.run()
    for node in network.nodes.values():
        assert node.finished[OpId(0, 0)][0].blobs == tuple(blobs.values())


def test_different_operations_under_one_number_fail_everywhere_and_both_are_named() -> None:
    network = founded("abc", seed=2)
    for uid, label in zip(network.nodes, ("reduce of loss", "barrier", "barrier"), strict=True):
        vector = np.ones(30, np.float32) if label != "barrier" else None
        network.nodes[uid].exchange.begin(OpId(0, 0), label, b"", vector, 1.0)
        network.nodes[uid].busy = True
        network.carry_out(network.nodes[uid])
    network.run()
    assert len(network.failed) == 3
    assert not network.accused
    for failed in network.failed:
        assert isinstance(failed.error, OperationMismatch)
        assert f"{A}: reduce of loss" in str(failed.error)
        assert f"{B}, {C}: barrier" in str(failed.error)


def test_vectors_of_different_size_accuse_their_sender() -> None:
    network = founded("ab", seed=3)
    for uid, size in ((A, 8), (B, 12)):
        network.nodes[uid].exchange.begin(OpId(0, 0), "gradients", b"", np.ones(size, "f4"), 1.0)
        network.nodes[uid].busy = True
        network.carry_out(network.nodes[uid])
    network.run()
    assert {accused.uid for accused in network.accused} == {A, B}
    assert any("vector of 48 bytes, expected are 32" in a.reason for a in network.accused)


# ---- one exchange, frames by hand ------------------------------------------------------------


def begun(names: str = "ab", floats: int = 8) -> Exchange:
    """Member a of a view of these, in operation 3.0 with a vector."""
    exchange = Exchange(A, lambda: 5.0)
    exchange.install(view_of(2, names), None)
    exchange.start(OpId(2, 1))
    exchange.begin(OpId(3, 0), "gradients", b"", np.ones(floats, np.float32), 1.0)
    exchange.actions()
    return exchange


def faultless(exchange: Exchange) -> Frame:
    """The contribution of b to the half that a roots."""
    tag = pack_tag()
    return Frame(FrameKind.CONTRIBUTION, tag, 2, OpId(3, 0), 1, 0, 16, 1.0)


def pack_tag() -> int:
    exchange = Exchange(B, lambda: 0.0)
    exchange.install(view_of(2, "ab"), None)
    exchange.begin(OpId(3, 0), "gradients", b"", np.ones(8, np.float32), 1.0)
    return next(a.frame.tag for a in exchange.actions() if isinstance(a, Send))


def changed(frame: Frame, **values: object) -> Frame:
    fields = {name: getattr(frame, name) for name in Frame.__slots__}
    return Frame(**{**fields, **values})


def accusations(actions: list[Action]) -> list[str]:
    return [action.reason for action in actions if isinstance(action, Misbehaved)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"length": 12}, "has 12 bytes at 0, expected are 16 at 0"),
        ({"offset": 16}, "expected are 16 at 0"),
        ({"chunk": 9}, "chunk 9 of 3"),
        ({"chunk": 2, "offset": 16}, "not this member's to add up"),
        ({"kind": FrameKind.RESULT}, "must come from nobody"),
        ({"weight": float("nan")}, "weight nan"),
        ({"weight": -1.0}, "weight -1"),
        ({"chunk": HEADER, "length": MAX_PAYLOAD_BYTES}, f"{MAX_PAYLOAD_BYTES} bytes"),
        ({"chunk": HEADER, "length": 0}, "has 0 bytes"),
    ],
)
def test_a_frame_of_the_wrong_shape_accuses_its_sender(
    change: dict[str, object], told: str
) -> None:
    exchange = begun()
    assert exchange.place(B, changed(faultless(exchange), **change)) is Verdict.DROP
    (reason,) = accusations(exchange.actions())
    assert told in reason


def test_a_contribution_that_comes_twice_or_from_a_stranger_accuses_its_sender() -> None:
    exchange = begun()
    assert not isinstance(exchange.place(B, faultless(exchange)), Verdict)
    assert exchange.place(B, faultless(exchange)) is Verdict.DROP
    assert exchange.place("stranger/1", faultless(exchange)) is Verdict.DROP
    twice, stranger = accusations(exchange.actions())
    assert "came twice" in twice
    assert "no contributor" in stranger


def test_frames_of_older_epochs_and_operations_are_dropped_and_early_ones_left_unread() -> None:
    exchange = begun()
    frame = faultless(exchange)
    assert exchange.place(B, changed(frame, epoch=1)) is Verdict.DROP
    assert exchange.place(B, changed(frame, op=OpId(2, 1))) is Verdict.DROP
    assert exchange.place(B, changed(frame, op=OpId(3, 1))) is Verdict.PAUSE
    assert exchange.actions() == []
    assert exchange.place(B, changed(frame, epoch=3)) is Verdict.PAUSE
    assert exchange.place(B, changed(frame, epoch=3)) is Verdict.PAUSE
    assert exchange.actions() == [AskCommit(B, 3)]


def test_a_frozen_exchange_takes_nothing_and_voids_what_is_half_received() -> None:
    exchange = begun()
    landing = exchange.place(B, faultless(exchange))
    assert not isinstance(landing, Verdict)
    exchange.freeze()
    assert landing.memory is None
    assert exchange.place(B, faultless(exchange)) is Verdict.DROP
    exchange.complete(B, faultless(exchange), landing)
    assert exchange.report(3).held == ()
    assert exchange.place(B, changed(faultless(exchange), epoch=3)) is Verdict.PAUSE


def test_a_malformed_header_accuses_its_sender() -> None:
    good = pack_parts([Part("gradients", 32, 1.0, b"")])
    for payload, weight in ((b"\xc1" * 9, 1.0), (good[:-1], 1.0), (good, 2.0)):
        exchange = begun()
        frame = changed(
            faultless(exchange), chunk=HEADER, offset=0, length=len(payload), weight=weight
        )
        landing = exchange.place(B, frame)
        assert not isinstance(landing, Verdict)
        assert landing.memory is not None
        landing.memory[:] = payload
        exchange.complete(B, frame, landing)
        assert len(accusations(exchange.actions())) == 1


def test_different_total_weights_of_one_operation_are_an_error() -> None:
    exchange = Exchange(A, lambda: 0.0)
    exchange.install(view_of(2, "bac"), None)
    exchange.begin(OpId(3, 0), "gradients", b"", np.ones(9, np.float32), 1.0)
    exchange.actions()
    tag = pack_tag()
    for sender, chunk, total in ((B, 1, 3.0), (C, 3, 4.0)):
        frame = Frame(FrameKind.RESULT, tag, 2, OpId(3, 0), chunk, 12 * (chunk - 1), 12, total)
        landing = exchange.place(sender, frame)
        assert not isinstance(landing, Verdict)
        exchange.complete(sender, frame, landing)
    (failed,) = (a for a in exchange.actions() if isinstance(a, Failed))
    assert "total weights 3.0 and 4.0" in str(failed.error)


def test_late_names_who_owes_a_contribution() -> None:
    now = 5.0
    exchange = Exchange(A, lambda: now)
    exchange.install(view_of(2, "abc"), None)
    exchange.begin(OpId(3, 0), "barrier", b"")
    now = 8.0
    assert exchange.late() == (OpId(3, 0), 3.0, {B: 1, C: 1})
    exchange.freeze()
    assert exchange.late() is None


def test_what_cannot_be_begun_is_refused_with_the_reason() -> None:
    exchange = begun()
    with pytest.raises(ValueError, match="out of turn"):
        exchange.begin(OpId(3, 1), "barrier", b"")
    other = Exchange(C, lambda: 0.0)
    other.install(view_of(2, "ab"), None)
    with pytest.raises(NodeLost, match="no member of epoch 2"):
        other.begin(OpId(3, 0), "barrier", b"")
    with pytest.raises(ChaosError, match="weight inf"):
        other.begin(OpId(3, 0), "barrier", b"", weight=float("inf"))
    with pytest.raises(ValueError, match="buckets cover 8 bytes of a vector of 12"):
        other.begin(OpId(3, 0), "x", b"", np.ones(3, np.float32), 1.0, ((0, 8),))
    one = Exchange(A, lambda: 0.0)
    one.install(view_of(2, "abcdefgh"), None)
    with pytest.raises(ChaosError, match="Gather less at once"):
        one.begin(OpId(3, 0), "gather", bytes(MAX_PAYLOAD_BYTES // 8))


# ---- layouts ---------------------------------------------------------------------------------


def test_a_layout_cuts_every_bucket_by_the_shares_on_float_boundaries() -> None:
    layout = Layout.of((A, B, C), ReducePlan.direct((1, 0, 3)), [(0, 40), (40, 4)])
    assert [(c.id, c.offset, c.length, c.root) for c in layout.chunks] == [
        (0, 0, 0, A),
        (1, 0, 8, A),
        (2, 8, 32, C),
        (3, 40, 4, C),
    ]


def test_the_chunks_of_any_layout_tile_the_vector() -> None:
    rng = random.Random(7)
    for _ in range(200):
        members = tuple(f"m{i}/1" for i in range(rng.randint(1, 6)))
        shares = (1, *(rng.randint(0, 4) for _ in members[1:]))
        sizes = [rng.randrange(50) * 4 for _ in range(rng.randint(0, 4))]
        buckets = [(sum(sizes[:i]), size) for i, size in enumerate(sizes)]
        at = 0
        for chunk in Layout.of(members, ReducePlan.direct(shares), buckets).chunks[1:]:
            assert chunk.offset == at
            assert chunk.length > 0
            at += chunk.length
        assert at == sum(sizes)


def test_a_layout_refuses_a_plan_for_others_and_half_floats() -> None:
    with pytest.raises(ValueError, match="for 1 members, here are 2"):
        Layout.of((A, B), mesh_plan((A,)), [])
    with pytest.raises(ValueError, match="not whole floats"):
        Layout.of((A,), mesh_plan((A,)), [(0, 6)])
