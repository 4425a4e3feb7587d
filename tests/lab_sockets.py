"""Two ends of a connection through a relay, in one process with one clock."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.door import open_door
from lightning_chaos.transport.relayed import RelayedDialler

BOUND_S = 10.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def play(scene: Coroutine[Any, Any, None]) -> None:
    """Run it, but not for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(3 * BOUND_S):
            await scene

    asyncio.run(bounded())


@contextlib.asynccontextmanager
async def door_of(relays: Relays, node: str) -> AsyncIterator[socket.socket]:
    """A door that the relay knows as that node's."""
    with open_door("127.0.0.1", 0) as door:
        relays.place(node, address_of(door))
        yield door


def address_of(door: socket.socket) -> Address:
    """Where it is."""
    return Address(*door.getsockname())


async def call(
    relays: Relays, node: str, door: socket.socket, timeout_s: float = BOUND_S
) -> socket.socket:
    """That node's end of a new connection to the door."""
    return await RelayedDialler(relays.address, node)(address_of(door), timeout_s)


@contextlib.asynccontextmanager
async def connected(
    relays: Relays, a: str, b: str
) -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection that node ``a`` opened to node ``b``."""
    async with door_of(relays, b) as door:
        near = await call(relays, a, door)
        far, _ = await asyncio.get_running_loop().sock_accept(door)
        far.setblocking(False)
        with near, far:
            yield near, far


async def send(sock: socket.socket, data: bytes) -> None:
    """All of it."""
    async with asyncio.timeout(BOUND_S):
        await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(sock: socket.socket, size: int = 1 << 16) -> bytes:
    """What comes next, b'' at the end."""
    async with asyncio.timeout(BOUND_S):
        return await asyncio.get_running_loop().sock_recv(sock, size)


async def receive_all(sock: socket.socket, size: int) -> bytes:
    """Exactly that many bytes."""
    parts: list[bytes] = []
    while size:
        part = await receive(sock, min(size, 1 << 16))
        assert part, f"it ended {size} bytes too early"
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


async def nothing_arrives(sock: socket.socket, seconds: float) -> None:
    """Nothing does, for so long."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_recv(sock, 1)


def not_delivered(sock: socket.socket) -> int:
    """Bytes in the send buffer that the other side's kernel has not acknowledged."""
    (size,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(size)


async def push(sock: socket.socket, still_s: float = 0.3) -> int:
    """Send until nothing is taken for ``still_s`` seconds; returns the bytes *delivered*."""
    loop, sent, last = asyncio.get_running_loop(), 0, 0.0
    last = loop.time()
    while loop.time() - last < still_s:
        try:
            sent += sock.send(bytes(1 << 14))
            last = loop.time()
        except BlockingIOError:
            await asyncio.sleep(0.005)
    return sent - not_delivered(sock)


async def until(true: Callable[[], bool], what: str) -> None:
    """Wait until it is true."""
    deadline = asyncio.get_running_loop().time() + BOUND_S
    while not true():
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.01)
