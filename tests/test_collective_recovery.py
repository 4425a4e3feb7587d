"""Failures at any moment: survivors end with the same results, and nothing stable goes back."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
from collective_failures import frozen, installed, kinds, some_steps, under_way
from collective_network import Network, member, view_of

from lightning_chaos.collective.actions import Failed, Finished, Send, Verdict
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.errors import NodeLost
from lightning_chaos.protocol.values import Decision, OpId

A, B, C = (member(name).uid for name in "abc")


def crash(network: Network) -> None:
    network.kill(network.rng.choice(list(network.nodes)))


def test_survivors_of_a_crash_end_with_the_same_results() -> None:
    hits: Counter[str] = Counter()
    for seed in range(300):
        rng = random.Random(seed)
        network = under_way("abcde"[: rng.randint(2, 5)], rng)
        crash(network)
        decision = frozen(network, 2)
        hits.update(kinds(network, decision, lost=True))
        installed(network, 2, rng.sample(list(network.nodes), len(network.nodes)))
        network.run()
        network.check()
    assert hits["behind"] > 5
    assert hits["pass"] > 5
    assert hits["redo"] > 5


def test_a_second_crash_before_during_or_after_the_recovery_changes_nothing_of_that() -> None:
    hits: Counter[str] = Counter()
    for seed in range(400):
        rng = random.Random(10_000 + seed)
        network = under_way("abcde"[: rng.randint(3, 5)], rng)
        crash(network)
        first = kinds(network, frozen(network, 2), lost=True)
        order = rng.sample(list(network.nodes), len(network.nodes))
        got = rng.randint(0, len(order))
        installed(network, 2, order[:got])
        some_steps(network, 30)
        crash(network)
        second = kinds(network, frozen(network, 3), lost=True)
        hits.update(f"{one}, then {other}" for one in first for other in second)
        hits["some had not heard"] += 0 < got < len(order)
        installed(network, 3, rng.sample(list(network.nodes), len(network.nodes)))
        network.run()
        network.check()
    assert hits["some had not heard"] > 20
    for pair in ("redo, then redo", "behind, then behind", "pass, then pass", "pass, then behind"):
        assert hits[pair] > 0, hits


def test_a_lost_link_between_members_that_stay_keeps_the_results_that_are_held() -> None:
    hits: Counter[str] = Counter()
    for seed in range(200):
        rng = random.Random(20_000 + seed)
        network = under_way("abcd"[: rng.randint(2, 4)], rng)
        for epoch in range(2, 2 + rng.randint(1, 3)):
            network.cut(*rng.sample(list(network.nodes), 2))
            hits.update(kinds(network, frozen(network, epoch), lost=False))
            if epoch % 2:
                uids = list(network.nodes)
                installed(network, epoch, rng.sample(uids, rng.randint(0, len(uids))))
            else:
                installed(network, epoch, rng.sample(list(network.nodes), len(network.nodes)))
            some_steps(network, 20)
        frozen(network, 9)
        installed(network, 9, rng.sample(list(network.nodes), len(network.nodes)))
        network.run()
        network.check()
        for node in network.nodes.values():
            for finished, _ in node.finished.values():
                assert finished.view.uids == tuple(network.nodes)
    assert hits["keep"] > 10
    assert hits["behind"] > 5


# ---- by hand ---------------------------------------------------------------------------------


def decision(finished: OpId, **values: object) -> Decision:
    fields = {"sources": (), "behind": (), "held": {}, "contributors": (), "data_from": 0}
    return Decision(finished=finished, **{**fields, **values})  # type: ignore[arg-type]


def test_an_operation_begun_while_frozen_starts_under_the_view_that_ends_the_freeze() -> None:
    exchange = Exchange(A, lambda: 0.0)
    exchange.install(view_of(1, "ab"), None)
    exchange.freeze()
    exchange.begin(OpId(0, 0), "barrier", b"")
    assert not any(isinstance(action, Send) for action in exchange.actions())
    assert exchange.report(0).current is None
    exchange.install(view_of(2, "a"), decision(exchange.last))
    assert [a.view.uids for a in exchange.actions() if isinstance(a, Finished)] == [(A,)]


def test_the_rest_of_a_frame_of_the_old_attempt_is_not_written_into_the_new_one() -> None:
    exchange = Exchange(A, lambda: 0.0)
    exchange.install(view_of(1, "abc"), None)
    exchange.begin(OpId(0, 0), "gradients", b"", np.ones(6, np.float32), 1.0)
    frame = next(
        a.frame for a in exchange.actions() if isinstance(a, Send) and a.to == B and a.frame.chunk
    )
    contribution = type(frame)(frame.kind, frame.tag, 1, frame.op, 1, 0, 8, 1.0)
    landing = exchange.place(B, contribution)
    assert not isinstance(landing, Verdict)
    exchange.freeze()
    exchange.install(view_of(2, "ab"), decision(exchange.last))
    assert landing.memory is None
    exchange.complete(B, contribution, landing)
    assert exchange.place(B, contribution) is Verdict.DROP
    assert not any(isinstance(a, Finished | Failed) for a in exchange.actions())


def test_a_commit_heard_twice_or_late_changes_nothing() -> None:
    exchange = Exchange(A, lambda: 0.0)
    exchange.install(view_of(3, "a"), decision(exchange.last))
    exchange.actions()
    exchange.install(view_of(3, "a"), decision(exchange.last))
    exchange.install(view_of(2, "ab"), None)
    assert exchange.actions() == []


def test_a_member_whose_attempt_had_other_contributors_than_the_kept_results_says_so() -> None:
    exchange = Exchange(A, lambda: 0.0)
    exchange.install(view_of(1, "ab"), None)
    exchange.begin(OpId(0, 0), "barrier", b"")
    exchange.freeze()
    kept = decision(exchange.last, held={0: C}, contributors=(A, B, C))
    exchange.install(view_of(2, "ac"), kept)
    (failed,) = (a for a in exchange.actions() if isinstance(a, Failed))
    assert isinstance(failed.error, NodeLost)


def test_members_behind_get_the_kept_results_from_the_named_source_only() -> None:
    a, b = Exchange(A, lambda: 0.0), Exchange(B, lambda: 0.0)
    for exchange in (a, b):
        exchange.install(view_of(1, "ab"), None)
        exchange.begin(OpId(0, 0), "barrier", exchange.report(0).finished.__repr__().encode())
    (sent,) = (x for x in b.actions() if isinstance(x, Send))
    landing = a.place(B, sent.frame)
    assert not isinstance(landing, Verdict)
    assert landing.memory is not None
    landing.memory[:] = sent.payload
    a.complete(B, sent.frame, landing)
    assert a.report(0).finished == OpId(0, 0)
    a.freeze()
    b.freeze()
    a.actions()
    plan = decision(OpId(0, 0), sources=(A,), behind=(B,))
    a.install(view_of(2, "ab"), plan)
    b.install(view_of(2, "ab"), plan)
    (passed,) = (x for x in a.actions() if isinstance(x, Send))
    assert (passed.to, passed.frame.epoch) == (B, 2)
    landing = b.place(A, passed.frame)
    assert not isinstance(landing, Verdict)
    assert landing.memory is not None
    landing.memory[:] = passed.payload
    b.complete(A, passed.frame, landing)
    assert b.last == OpId(0, 0)
