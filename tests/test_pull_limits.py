"""A pull has its bounds: of memory at the learner, of patience with it at the donor."""

from __future__ import annotations

import asyncio
import select
import socket

import pytest
from pull_stage import LEARNER, RUN, image_of, in_a_loop, stage, state

from lightning_chaos.errors import StateDeclined
from lightning_chaos.planning.pull import MAX_SHARD_BYTES
from lightning_chaos.protocol.values import OpId
from lightning_chaos.replication import donor as donor_module
from lightning_chaos.replication.image import Manifest, digest_of
from lightning_chaos.replication.shard_channel import ShardChannel
from lightning_chaos.replication.wire import (
    AnyPull,
    Ask,
    ManifestReply,
    Pull,
    Train,
    Want,
    decode_pull,
    encode_pull,
)
from lightning_chaos.transport.door import Kind, preamble

LITTLE = 4096
"""Of both sides' buffers, bytes: what a learner does not read waits in the donor's process."""


@in_a_loop
async def test_a_state_that_memory_cannot_hold_ends_the_pull_with_its_size() -> None:
    manifest = manifest_of_two_terabytes()

    async def serve(sock: socket.socket) -> None:
        channel = await ShardChannel.over(sock, server_side=True)
        await channel.receive(5.0)
        channel.send(ManifestReply(manifest))
        await channel.receive(5.0)

    async with stage() as s:
        s.node("a", serve)
        with pytest.raises(StateDeclined, match=r"^the state has 2199.0 GB, .* not memory enough"):
            await s.pull(max_bytes=1 << 50)


def manifest_of_two_terabytes() -> Manifest:
    digests = (bytes(16),) * ((1 << 41) // MAX_SHARD_BYTES)
    sizes = (64, 1 << 41, MAX_SHARD_BYTES)
    parts = (*(n.to_bytes(8, "big") for n in sizes), *digests)
    return Manifest(30, OpId(29, 1), *sizes, digests, digest_of(memoryview(b"".join(parts))))


def test_a_learner_that_is_stopped_does_not_keep_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(donor_module, "_PARTING_S", 0.1)

    async def main() -> None:
        async with stage() as s:
            s.donor("a", image_of(state(50_000)))
            donor = s.donors["a"]

            async def serve(sock: socket.socket) -> str:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LITTLE)
                return await donor.serve(sock)

            node = s.node("b", serve)
            with socket.socket() as learner:
                learner.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LITTLE)
                learner.setblocking(False)
                await asyncio.get_running_loop().sock_connect(learner, node.address)
                await say(learner, preamble(Kind.SHARDS))
                await say(learner, framed(Ask(RUN, LEARNER)))
                while not isinstance(message := await heard(learner), ManifestReply):
                    if isinstance(message, Train):
                        await exactly(learner, message.length)
                await say(learner, framed(Want(0)))
                while not select.select([learner], [], [], 0)[0]:
                    await asyncio.sleep(0.01)
                donor.withdraw()  # most of the shard is still here, and the learner reads nothing
                while not node.served:
                    await asyncio.sleep(0.01)

    asyncio.run(main())


def framed(message: Pull) -> bytes:
    data = encode_pull(message)
    return len(data).to_bytes(4, "big") + data


async def say(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def heard(sock: socket.socket) -> AnyPull:
    return decode_pull(await exactly(sock, int.from_bytes(await exactly(sock, 4), "big")))


async def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        assert part
        data += part
    return data
