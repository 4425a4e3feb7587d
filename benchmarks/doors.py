"""What benchmarks of links share: doors and diallers of nodes in either of the lab's networks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.lab.wan.calibration import PAYLOAD_SHARE
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import Dialler, send_at_once
from lightning_chaos.transport.door import Kind, open_door, receive_kind
from lightning_chaos.transport.relayed import dialler_for

Serve = Callable[[socket.socket], Awaitable[object]]


def payload_of(network: Relays | Namespaces, rate_mbit: float) -> float:
    """What TCP has of a link that was told to have that rate, bytes/s."""
    share = 1.0 if isinstance(network, Relays) else PAYLOAD_SHARE
    return rate_mbit * BYTES_PER_S_PER_MBIT * share


def dialler_of(network: Relays | Namespaces, node: str) -> Dialler:
    """How that node reaches the others."""
    if isinstance(network, Relays):
        return dialler_for(str(network.address), node)

    async def dial(address: Address, timeout_s: float) -> socket.socket:
        sock = network.socket(node)
        sock.setblocking(False)
        send_at_once(sock)
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(sock, tuple(address))
        return sock

    return dial


@contextlib.asynccontextmanager
async def open_to(
    network: Relays | Namespaces, node: str, serve: Serve, kind: Kind = Kind.SHARDS
) -> AsyncIterator[Address]:
    """A door of that node, whose connections are served by that; closed at the end."""
    if isinstance(network, Relays):
        door = open_door("127.0.0.1", 0)
        network.place(node, Address(*door.getsockname()))
    else:
        door = network.socket(node)
        door.bind((network.address_of(node), 0))
        door.listen()
        door.setblocking(False)
    tasks: set[asyncio.Task[None]] = set()

    async def attend(sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.closing(sock), contextlib.suppress(OSError):
            assert await receive_kind(sock) is kind
            await serve(sock)

    async def accept() -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(door)
            tasks.add(asyncio.create_task(attend(sock)))

    tasks.add(asyncio.create_task(accept()))
    try:
        yield Address(*door.getsockname())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        door.close()
