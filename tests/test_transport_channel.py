"""Channels: whole messages, in order, however the bytes come in."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from lightning_chaos.errors import WireError
from lightning_chaos.transport.channel import MAX_MESSAGE_BYTES, Channel

BOUND_S = 20.0


@contextlib.asynccontextmanager
async def channel_and_socket() -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A channel, and the other end of its connection as a socket that does not wait."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        channel = await Channel.over(ours)
        try:
            async with asyncio.timeout(BOUND_S):
                yield channel, theirs
        finally:
            channel.abort()
            await channel.wait_closed()


def framed(*messages: bytes) -> bytes:
    return b"".join(len(m).to_bytes(4, "big") + m for m in messages)


class Writes(asyncio.Transport):
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.found.append(bytes(data))

    def is_closing(self) -> bool:
        return False


def test_a_message_is_one_write() -> None:
    channel, writes = Channel(), Writes()
    channel.connection_made(writes)
    channel.send(b"abc")
    channel.send(b"")
    assert writes.found == [framed(b"abc"), framed(b"")]


@pytest.mark.parametrize("size", [1, 3, 5, 1000])
def test_messages_come_whole_and_in_order_however_the_bytes_are_cut(size: int) -> None:
    async def scene() -> None:
        messages = [b"a", b"", b"bcd" * 7, b"e"]
        async with channel_and_socket() as (channel, far):
            data = framed(*messages)
            for at in range(0, len(data), size):
                far.send(data[at : at + size])
                await asyncio.sleep(0)
            assert [await channel.receive() for _ in messages] == messages

    asyncio.run(scene())


def test_a_listener_gets_what_came_before_and_what_comes_and_hears_the_end() -> None:
    async def scene() -> None:
        async with channel_and_socket() as (channel, far):
            far.send(framed(b"first", b"before", b"too"))
            assert await channel.receive() == b"first"
            heard: list[bytes] = []
            listening = asyncio.create_task(channel.listen(heard.append))
            while len(heard) < 2:
                await asyncio.sleep(0)
            far.send(framed(b"after"))
            far.shutdown(socket.SHUT_WR)
            await listening
            assert heard == [b"before", b"too", b"after"]

    asyncio.run(scene())


def test_what_a_listener_raises_ends_the_listening() -> None:
    async def scene() -> None:
        def take(message: bytes) -> None:
            heard.append(message)
            raise WireError("not understood")

        heard: list[bytes] = []
        async with channel_and_socket() as (channel, far):
            far.send(framed(b"one", b"two"))
            with pytest.raises(WireError, match="not understood"):
                await channel.listen(take)
            assert heard == [b"one"]

    asyncio.run(scene())


def test_so_does_what_it_raises_after_the_connection_has_ended() -> None:
    async def scene() -> None:
        def take(_: bytes) -> None:
            raise WireError("not understood")

        async with channel_and_socket() as (channel, far):
            far.send(framed(b"one"))
            far.close()
            await channel._over.wait()
            with pytest.raises(WireError, match="not understood"):
                await channel.listen(take)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        (b"\x00\x00", "truncated"),
        (framed(b"whole")[:-1], "truncated"),
        ((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"), "allowed are"),
        (b"HTTP/1.1 400 Bad Request", "no peer of lightning-chaos .* begins with 'HTTP'"),
    ],
)
def test_what_is_no_message_is_an_error_after_those_before_it(rest: bytes, problem: str) -> None:
    async def scene() -> None:
        async with channel_and_socket() as (channel, far):
            far.send(framed(b"good") + rest)
            far.shutdown(socket.SHUT_WR)
            assert await channel.receive() == b"good"
            with pytest.raises(WireError, match=problem):
                await channel.receive()

    asyncio.run(scene())


def test_what_came_before_the_connection_broke_is_heard() -> None:
    async def scene() -> None:
        async with channel_and_socket() as (channel, far):
            far.send(framed(b"last") + b"\x00")
            channel.send(b"unread: closing now breaks the connection")
            far.close()
            assert await channel.receive() == b"last"
            with pytest.raises(WireError, match="truncated"):
                await channel.receive()

    asyncio.run(scene())


def test_who_has_ended_is_still_told() -> None:
    async def scene() -> None:
        async with channel_and_socket() as (channel, far):
            channel.send(b"last")
            channel.end()
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(far, 100) == framed(b"last")
            assert await loop.sock_recv(far, 100) == b""
            far.send(framed(b"answer"))
            assert await channel.receive() == b"answer"

    asyncio.run(scene())


def test_what_nobody_asks_for_is_not_read_without_bound() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        async with channel_and_socket() as (channel, far):
            messages = [bytes([i]) * 50_000 for i in range(100)]
            sending = asyncio.create_task(loop.sock_sendall(far, framed(*messages)))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(sending), 0.2)
            assert [await channel.receive() for _ in messages] == messages
            await sending

    asyncio.run(scene())


def test_a_closed_channel_swallows_what_is_sent() -> None:
    async def scene() -> None:
        async with channel_and_socket() as (channel, _):
            channel.close()
            assert channel.closing
            channel.send(b"nobody hears that")
            await channel.wait_closed()
            assert await channel.receive() is None

    asyncio.run(scene())
