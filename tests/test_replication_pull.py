"""A newcomer pulls from donors over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket

import pytest
from pull_stage import (
    LEARNER,
    MB,
    RUN,
    Node,
    assert_whole,
    image_of,
    in_a_loop,
    stage,
    state,
)

from lightning_chaos.errors import ChaosError, StateError, WireError
from lightning_chaos.replication.image import StateImage, digest_of
from lightning_chaos.replication.inflow import Arrived, Heard, TrainSeen
from lightning_chaos.replication.shard_channel import ShardChannel
from lightning_chaos.replication.values import Progress
from lightning_chaos.replication.wire import (
    AnyPull,
    Ask,
    LocalReply,
    ManifestReply,
    NotYet,
    Refuse,
    Shard,
    Train,
    Want,
    WantLocal,
    decode_pull,
    encode_pull,
)
from lightning_chaos.transport.dial import dial, dial_tcp
from lightning_chaos.transport.door import Kind
from lightning_chaos.transport.train import TRAIN_BYTES


async def client(node: Node) -> ShardChannel:
    return await ShardChannel.over(await dial(dial_tcp, node.address, Kind.SHARDS, 5.0))


async def heard(channel: ShardChannel) -> Heard | None:
    """The next message that is neither a NotYet nor a train."""
    while isinstance(message := await channel.receive(5.0), NotYet | TrainSeen):
        pass
    return message


@in_a_loop
async def test_three_paced_donors_serve_at_the_same_time() -> None:
    async with stage() as s:
        tree = state(12 * MB)
        seen: list[Progress] = []
        for name in "abc":
            s.donor(name, image_of(tree, f"of {name}"), rate=12e6)
        pulled = await s.pull(progress=seen.append)
        assert_whole(pulled, tree)
        assert pulled.local == "of a"
        firsts = [share.first_s for share in pulled.donors if share.first_s is not None]
        lasts = [share.last_s for share in pulled.donors if share.last_s is not None]
        assert max(firsts) < min(lasts)
        for share in pulled.donors:
            assert share.bytes >= 0.1 * pulled.manifest.total_bytes
            assert not share.problem
        assert seen[-1].bytes == seen[-1].total == pulled.manifest.total_bytes
        assert seen[-1].per_donor == {share.name: share.bytes for share in pulled.donors}


@in_a_loop
async def test_wrong_rate_estimates_do_not_leave_the_work_to_the_slow_donor() -> None:
    async with stage() as s:
        tree = state(8 * MB)
        s.donor("a", image_of(tree), rate=1e6)
        s.donor("b", image_of(tree))
        pulled = await s.pull(rates={"a": 100e6, "b": 1e6})
        assert_whole(pulled, tree)
        slow, fast = pulled.donors
        assert fast.bytes > slow.bytes


@in_a_loop
async def test_a_donor_that_dies_costs_only_its_shards_under_way() -> None:
    async with stage() as s:
        tree = state()
        for name in "abc":
            s.donor(name, image_of(tree), rate=25e6)

        def kill(progress: Progress) -> None:
            if progress.per_donor["b"] >= 2 * 65536:
                s.nodes[1].kill()

        pulled = await s.pull(progress=kill)
        assert_whole(pulled, tree)
        assert "b" in {share.name for share in pulled.donors if share.problem}
        assert pulled.donors[1].bytes >= 2 * 65536


@in_a_loop
async def test_the_local_part_comes_from_another_when_the_donor_named_is_gone() -> None:
    async with stage() as s:
        tree = state()
        gone = s.donor("a", image_of(tree, "of a"))
        s.donor("b", image_of(tree, "of b"))
        await gone.aclose()
        pulled = await s.pull()
        assert pulled.local == "of b"
        assert "Connect call failed" in pulled.donors[0].problem


def image_with_wrong_bytes() -> StateImage:
    """The manifest of :func:`state`, but other bytes from then on."""
    tree = state()
    image = image_of(tree)
    tree["weights"]["noise"] += 1
    return image


@in_a_loop
async def test_wrong_shards_are_never_taken() -> None:
    async with stage() as s:
        tree = state()
        s.donor("a", image_of(tree))
        s.donor("b", image_with_wrong_bytes())
        pulled = await s.pull()
        assert_whole(pulled, tree)
        assert not pulled.donors[1].bytes


@in_a_loop
async def test_the_second_wrong_shard_costs_a_donor_its_part() -> None:
    async with stage() as s:
        s.donor("b", image_with_wrong_bytes())
        with pytest.raises(StateError, match="b: sent 2 wrong shards"):
            await s.pull()


@in_a_loop
async def test_a_donor_whose_state_differs_from_that_of_most_sits_out() -> None:
    async with stage() as s:
        tree = state()
        for name, seed in (("a", 2), ("b", 1), ("c", 1)):
            s.donor(name, image_of(state(seed=seed), f"of {name}"))
        pulled = await s.pull()
        assert_whole(pulled, tree)
        assert "sits out" in pulled.donors[0].problem
        assert pulled.local in ("of b", "of c")


@in_a_loop
async def test_of_two_donors_that_differ_the_one_with_the_local_part_counts() -> None:
    async with stage() as s:
        s.donor("a", image_of(state(seed=1), round=31))
        s.donor("b", image_of(state(seed=1), round=30))
        pulled = await s.pull(local_from="b/1")
        assert pulled.manifest.round == 30
        assert "round 31 is not" in pulled.donors[0].problem


@in_a_loop
async def test_a_donor_that_falls_silent_is_left_for_the_others() -> None:
    async with stage() as s:
        tree = state()
        s.donor("a", image_of(tree, "of a"))
        s.node("b", lambda sock: _say_manifest_then(sock, tree, None))
        pulled = await s.pull(local_from="b/1", stall_s=1.5)
        assert_whole(pulled, tree)
        assert pulled.local == "of a"
        assert "sent nothing for 1.5 s" in pulled.donors[1].problem


@in_a_loop
async def test_what_the_learner_holds_already_is_not_pulled() -> None:
    async with stage() as s:
        tree, own = state(), state()
        own["weights"]["noise"][:100_000] = 0
        own["optimizer"] = "a structure of its own"
        s.donor("a", image_of(tree))
        pulled = await s.pull(held=image_of(own))
        assert_whole(pulled, tree)
        assert 2 * MB < pulled.kept_bytes < 3 * MB


@in_a_loop
async def test_a_learner_that_holds_everything_pulls_only_the_local_part() -> None:
    async with stage() as s:
        tree = state()
        s.donor("a", image_of(tree, "of a"))
        pulled = await s.pull(held=image_of(tree))
        assert_whole(pulled, tree)
        assert pulled.kept_bytes == pulled.manifest.total_bytes
        assert pulled.local == "of a"


@in_a_loop
async def test_when_no_donor_is_left_the_error_names_each_ones_reason() -> None:
    async with stage() as s:
        s.donor("a", image_of(state()), run="other")
        s.donor("b", patience_s=0.5)
        s.node("c", lambda sock: asyncio.sleep(0))
        with pytest.raises(StateError) as caught:
            await s.pull()
        assert "a: refused: this is run 'other', not 'run'" in str(caught.value)
        assert "b: refused: no state to serve within 0.5 s" in str(caught.value)
        assert re.search("c: (closed the connection|connection lost)", str(caught.value))


@in_a_loop
async def test_a_state_larger_than_allowed_is_refused_before_memory_is_taken() -> None:
    async with stage() as s:
        s.donor("a", image_of(state()))
        with pytest.raises(StateError, match="at most 1000000 are taken"):
            await s.pull(max_bytes=MB)


async def _say_manifest_then(sock: socket.socket, tree: object, lie: AnyPull | None) -> None:
    """A donor that is none: after its manifest and the first request it lies or says nothing."""
    channel = await ShardChannel.over(sock, server_side=True)
    assert isinstance(await channel.receive(5.0), Ask)
    channel.send(ManifestReply(image_of(tree).manifest))
    await channel.receive(5.0)
    if lie is not None:
        channel.send(lie)
    while await channel.receive(5.0) is not None:
        pass


async def _say(sock: socket.socket, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_recv(sock, 1000)
    await loop.sock_sendall(sock, data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x00\x00", "closed within a length"),
        (b"\x00\x00\x00\x09abc", "closed within a message"),
        (b"\x00\x00\x00\x03abc", "not a message"),
        (b"\x00\x00\x00\x00", "message of 0 bytes"),
        (b"\xff\xff\xff\xff", "message of 4294967295 bytes"),
        (b"\x00\x00\x00\x01\x90", "not a message"),
    ],
)
def test_a_donor_that_talks_nonsense_is_out_and_the_pull_goes_on(data: bytes, problem: str) -> None:
    async def main() -> None:
        async with stage() as s:
            tree = state()
            s.donor("a", image_of(tree), rate=25e6)
            s.node("liar", lambda sock: _say(sock, data))
            pulled = await s.pull()
            assert_whole(pulled, tree)
            assert problem in pulled.donors[1].problem

    asyncio.run(main())


@pytest.mark.parametrize(
    ("lie", "problem"),
    [
        (Shard(0, 70_000), "shard of 70000 bytes"),
        (Shard(0, 0), "shard of 0 bytes"),
        (Train(70_000), "train of 70000 bytes"),
        (Want(3), "sent Want that nobody asked for"),
        (LocalReply(b""), "received state is malformed"),
        (ManifestReply(image_of(state(10)).manifest), "sent ManifestReply"),
        (Refuse("no more"), "refused: no more"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_donor_that_breaks_the_rules_after_its_manifest_is_out(
    lie: AnyPull, problem: str
) -> None:
    async def main() -> None:
        async with stage() as s:
            tree = state()
            s.donor("a", image_of(tree))
            s.node("liar", lambda sock: _say_manifest_then(sock, tree, lie))
            # the local part is asked of the liar, so the pull does not end before it has lied
            pulled = await s.pull(local_from="liar/1")
            assert_whole(pulled, tree)
            assert problem in pulled.donors[1].problem

    asyncio.run(main())


@in_a_loop
async def test_a_train_is_told_whole_by_the_clock_of_the_event_loop() -> None:
    now = asyncio.get_running_loop().time
    async with stage() as s:
        channel = await client(s.donor("a"))
        asked = now()
        channel.send(Ask(RUN, LEARNER))
        seen = await channel.receive(5.0)
        assert isinstance(seen, TrainSeen)
        assert sum(some.bytes for some in seen.arrivals) == TRAIN_BYTES
        assert len(seen.arrivals) >= TRAIN_BYTES / 1448
        assert all(asked - 0.01 < some.at < now() + 0.01 for some in seen.arrivals)


@in_a_loop
async def test_an_ask_that_comes_before_the_image_waits_for_it() -> None:
    async with stage() as s:
        node = s.donor("a")
        channel = await client(node)
        channel.send(Ask(RUN, LEARNER))
        assert isinstance(await channel.receive(5.0), TrainSeen)
        assert await channel.receive(5.0) == NotYet()
        image = image_of(state())
        s.donors["a"].offer(image, [LEARNER])
        assert await heard(channel) == ManifestReply(image.manifest)
        channel.send(WantLocal())
        channel.send(Want(0))
        assert await heard(channel) == LocalReply(image.local)
        channel.expect_shards(image.manifest.shard_bytes)
        shard = await heard(channel)
        assert isinstance(shard, Arrived)
        assert shard.data == b"".join(image.read(*image.manifest.span(0)))
        channel.close()
        await channel.wait_closed()


@in_a_loop
async def test_a_stranger_gets_no_bytes_and_leaves_nothing_behind() -> None:
    async with stage() as s:
        node = s.donor("a", image_of(state()), patience_s=0.5)
        channel = await client(node)
        channel.send(Ask(RUN, "stranger/1"))
        said = []
        while (message := await channel.receive(5.0)) is not None:
            said.append(message)
        assert {type(m) for m in said} == {NotYet, Refuse}
        assert "stranger/1 has no place" in str(said[-1])
        assert s.paced == []


@in_a_loop
async def test_who_asks_before_the_donor_knows_its_place_is_served_when_it_does() -> None:
    async with stage() as s:
        node = s.donor("a")
        channel = await client(node)
        channel.send(Ask(RUN, "early/1"))
        assert isinstance(await channel.receive(5.0), NotYet)
        s.donors["a"].admit(["early/1"])
        while isinstance(message := await channel.receive(5.0), NotYet):
            pass
        assert isinstance(message, TrainSeen)
        assert s.paced == ["early/1"]


@in_a_loop
async def test_after_withdrawal_who_still_asks_is_refused_and_the_next_learner_waits() -> None:
    async with stage() as s:
        donor, node = s.donors, s.donor("a", image_of(state()))
        channel = await client(node)
        channel.send(Ask(RUN, LEARNER))
        assert isinstance(await heard(channel), ManifestReply)
        donor["a"].withdraw()
        assert isinstance(await heard(channel), Refuse)
        assert await heard(channel) is None
        late = await client(node)
        late.send(Ask(RUN, LEARNER))
        refused = await heard(late)
        assert isinstance(refused, Refuse)
        assert "serves this state no more" in refused.reason
        donor["a"].admit(["next/1"])
        early = await client(node)
        early.send(Ask(RUN, "next/1"))
        assert isinstance(await early.receive(5.0), TrainSeen)
        assert await early.receive(5.0) == NotYet()
        early.abort()
        await early.wait_closed()


@in_a_loop
async def test_nothing_is_sent_of_a_state_once_it_is_withdrawn() -> None:
    async with stage() as s:
        tree = state()
        node = s.donor("a", image_of(tree), rate=1e6)
        channel = await client(node)
        channel.send(Ask(RUN, LEARNER))
        reply = await heard(channel)
        assert isinstance(reply, ManifestReply)
        channel.expect_shards(reply.manifest.shard_bytes)
        for index in range(20):
            channel.send(Want(index))
        assert isinstance(await heard(channel), Arrived)
        s.donors["a"].withdraw()
        tree["weights"]["noise"].zero_()
        with contextlib.suppress(WireError):
            while isinstance(shard := await heard(channel), Arrived):
                assert digest_of(shard.data) == reply.manifest.digests[shard.index]


@pytest.mark.parametrize(
    "data",
    [b"\x00\x00\x00\x03abc", b"\xff\xff\xff\xff", b"\x00\x00", b""],
    ids=["malformed", "oversized", "truncated", "nothing"],
)
def test_a_learner_that_talks_nonsense_costs_the_donor_nothing(data: bytes) -> None:
    async def main() -> None:
        async with stage() as s:
            tree = state()
            node = s.donor("a", image_of(tree))
            sock = await dial(dial_tcp, node.address, Kind.SHARDS, 5.0)
            await asyncio.get_running_loop().sock_sendall(sock, data)
            sock.close()
            assert_whole(await s.pull(), tree)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Want(1 << 40), "there is no shard"),
        (Want(-1), "there is no shard"),
        (NotYet(), "a learner does not say NotYet"),
    ],
)
def test_a_learner_that_breaks_the_rules_is_refused(message: AnyPull, reason: str) -> None:
    async def main() -> None:
        async with stage() as s:
            node = s.donor("a", image_of(state()))
            channel = await client(node)
            channel.send(Ask(RUN, LEARNER))
            assert isinstance(await heard(channel), ManifestReply)
            channel.send(message)
            answer = await heard(channel)
            assert isinstance(answer, Refuse)
            assert reason in answer.reason
            assert await heard(channel) is None

    asyncio.run(main())


@in_a_loop
async def test_a_pull_that_is_cancelled_leaves_no_connection() -> None:
    async with stage() as s:
        node = s.donor("a", image_of(state()), rate=1e5)
        under_way = asyncio.Event()
        task = asyncio.create_task(s.pull(progress=lambda _: under_way.set()))
        await under_way.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not node.served:
            await asyncio.sleep(0.01)


def test_messages_survive_the_wire_and_nothing_else_is_taken() -> None:
    manifest = image_of(state(1000)).manifest
    for message in (Ask(RUN, LEARNER), ManifestReply(manifest), Want(4), Shard(4, 5), NotYet()):
        assert decode_pull(encode_pull(message)) == message
    for data in (b"", b"\xc1", encode_pull(Want(4))[:-1], encode_pull(Want(4)) + b"\x00"):
        with pytest.raises(ChaosError):
            decode_pull(data)
