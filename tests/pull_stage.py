"""A stage for pulls: donors behind doors on loopback, and a learner."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import torch

from lightning_chaos.errors import ChaosError
from lightning_chaos.protocol.values import OpId, Uid
from lightning_chaos.replication.donor import Donor
from lightning_chaos.replication.image import StateImage, assemble
from lightning_chaos.replication.puller import pull
from lightning_chaos.replication.values import Progress, Pulled, Source
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import Dialler, dial_tcp
from lightning_chaos.transport.door import Kind, open_door, receive_kind
from lightning_chaos.transport.pacer import Pacer

RUN, LEARNER = "run", "new/1"
MB = 1_000_000
Serve = Callable[[socket.socket], Awaitable[object]]


class Node:
    """A door on loopback whose connections are served by a donor, or by a liar."""

    def __init__(self, name: str, serve: Serve) -> None:
        self.name = name
        self.uid = f"{name}/1"
        self.served: list[object] = []
        self._serve = serve
        self._door = open_door("127.0.0.1", 0)
        self.address = Address(*self._door.getsockname())
        self._tasks: set[asyncio.Task[None]] = {asyncio.create_task(self._accept())}

    async def _accept(self) -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(self._door)
            self._tasks.add(asyncio.create_task(self._attend(sock)))

    async def _attend(self, sock: socket.socket) -> None:
        with contextlib.closing(sock):
            assert await receive_kind(sock) is Kind.SHARDS
            self.served.append(await self._serve(sock))

    def kill(self) -> None:
        """All at once, as SIGKILL does it: no word, sockets closed."""
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        self.kill()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._door.close()
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, OSError | ChaosError):
                raise end


class Stage:
    """The nodes of one test."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self.nodes: list[Node] = []
        self.donors: dict[str, Donor] = {}
        self.paced: list[Uid] = []
        """To whom a speed limit was asked for."""

    def push(self, close: Callable[[], Awaitable[object]]) -> None:
        """Call that at the end."""
        self._stack.push_async_callback(close)

    def node(self, name: str, serve: Serve) -> Node:
        node = Node(name, serve)
        self._stack.push_async_callback(node.aclose)
        self.nodes.append(node)
        return node

    def donor(
        self,
        name: str,
        image: StateImage | None = None,
        rate: float | None = None,
        run: str = RUN,
        patience_s: float = 10.0,
    ) -> Node:
        pacer = Pacer(rate, time.monotonic)

        def pacer_for(uid: Uid) -> Pacer:
            self.paced.append(uid)
            return pacer

        donor = Donor(run, pacer_for, None, patience_s=patience_s)
        donor.admit([LEARNER])
        if image is not None:
            donor.offer(image, [LEARNER])
        self._stack.push_async_callback(donor.aclose)
        self.donors[name] = donor
        return self.node(name, donor.serve)

    async def pull(
        self,
        held: StateImage | None = None,
        rates: dict[str, float] | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
        local_from: str = "a/1",
        stall_s: float = 5.0,
        max_bytes: int = 100 * MB,
        dialler: Dialler = dial_tcp,
    ) -> Pulled:
        sources = [
            Source(node.uid, node.name, node.address, (rates or {}).get(node.name))
            for node in self.nodes
        ]
        return await pull(
            sources,
            run=RUN,
            uid=LEARNER,
            local_from=local_from,
            dialler=dialler,
            tls=None,
            held=held,
            progress=progress,
            stall_s=stall_s,
            max_bytes=max_bytes,
        )


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    async with asyncio.timeout(30), contextlib.AsyncExitStack() as stack:
        yield Stage(stack)


def state(size: int = 3 * MB, seed: int = 1) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)
    return {"weights": {"noise": noise, "bias": torch.ones(3)}, "epoch": 7}


def image_of(shared: object, local: object = "mine", round: int = 30) -> StateImage:
    return StateImage.of(shared, local, round=round, operation=OpId(29, 1))


def assert_whole(pulled: Pulled, tree: dict[str, Any]) -> None:
    found = assemble(pulled.manifest, pulled.buffer)
    assert found["epoch"] == tree["epoch"]
    assert torch.equal(found["weights"]["noise"], tree["weights"]["noise"])
    taken = sum(share.bytes for share in pulled.donors)
    assert taken + pulled.kept_bytes == pulled.manifest.total_bytes


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run
