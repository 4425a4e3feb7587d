"""The relay: takes the place of the network between nodes that dial it instead of each other."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import socket
from collections.abc import Coroutine
from typing import Any

from lightning_chaos.errors import WireError
from lightning_chaos.testing.lab.carriage import bound_buffers, carry
from lightning_chaos.testing.lab.conditions import Cut, Shape
from lightning_chaos.testing.lab.road import Road
from lightning_chaos.testing.lab.rules import Pair, Rules
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.relayed import ANSWER_BYTES, Call, receive_call

CALL_TIMEOUT_S = 5.0
_ACCEPT_AGAIN_S = 0.1
_logger = logging.getLogger(__name__)


class Relay:
    """Carries connections between nodes, on the running loop.

    Args:
        seed: of the jitter.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._places: dict[Address, str] = {}
        self._roads: dict[Pair, Road] = {}
        self._shapes = Rules(Shape())
        self._cuts = Rules(Cut.NONE)
        self._carried: dict[asyncio.Task[None], tuple[Pair, Pair]] = {}

    # ---- what the lab says ------------------------------------------------------------------

    def place(self, node: str, address: Address) -> None:
        """That node's door is there; a door of which nothing was said bears its address's name."""
        self._places[address] = node

    def shape(self, source: str, target: str, shape: Shape) -> None:
        """From now on links from ``source`` to ``target`` ('*': all) are like this."""
        self._shapes.say(source, target, shape)
        self._change()

    def cut(self, source: str, target: str, cut: Cut) -> None:
        """From now on links from ``source`` to ``target`` ('*': all) are cut like this."""
        self._cuts.say(source, target, cut)
        self._change()

    def carried_bytes(self) -> dict[Pair, int]:
        """Bytes that arrived so far, from which node at which."""
        return {pair: road.carried_bytes for pair, road in self._roads.items()}

    @property
    def connections(self) -> int:
        """Connections being carried, or called for."""
        return len(self._carried)

    # ---- what nodes do ----------------------------------------------------------------------

    async def serve(self, door: socket.socket) -> None:
        """Take calls until cancelled; then every connection is reset.

        Args:
            door: listening, non-blocking; :func:`bound_buffers` was called on it before.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    near, _ = await loop.sock_accept(door)
                except OSError as error:
                    _logger.warning("the relay cannot accept a connection: %s", error)
                    await asyncio.sleep(_ACCEPT_AGAIN_S)
                    continue
                near.setblocking(False)
                group.create_task(self._serve_call(near))

    async def _serve_call(self, near: socket.socket) -> None:
        """Any call: what goes wrong with one is that one's alone."""
        task = asyncio.current_task()
        assert task is not None
        with near:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    call = await receive_call(near)
                address = Address(call.host, call.port)
                pair = call.node, self._places.get(address, str(address))
                self._carried[task] = pair, pair[::-1]
                await self._connect(near, call, self._road(*pair), self._road(*pair[::-1]))
            except (OSError, WireError) as error:
                _logger.info("the relay dropped a call: %s", error)
            finally:
                self._carried.pop(task, None)

    async def _connect(self, near: socket.socket, call: Call, there: Road, back: Road) -> None:
        with contextlib.closing(Far()) as far:
            code = await _unless_hung_up(near, _reach(call, there, back, far))
            if code is None:
                return
            answer = code.to_bytes(ANSWER_BYTES, "big")
            await asyncio.get_running_loop().sock_sendall(near, answer)
            if code == 0 and far.sock is not None:
                await carry(near, far.sock, there, back)

    def _road(self, source: str, target: str) -> Road:
        if (source, target) not in self._roads:
            self._roads[source, target] = road = Road(self._rng)
            road.change(*self._conditions(source, target))
        return self._roads[source, target]

    def _conditions(self, source: str, target: str) -> tuple[Shape, Cut]:
        if source == target:  # what a node says to itself crosses no network
            return Shape(), Cut.NONE
        return self._shapes.of(source, target), self._cuts.of(source, target)

    def _change(self) -> None:
        for pair, road in self._roads.items():
            road.change(*self._conditions(*pair))
        for task, pairs in self._carried.items():
            if any(self._roads[pair].cut is Cut.RESET for pair in pairs if pair in self._roads):
                task.cancel()


async def _reach(call: Call, there: Road, back: Road, far: Far) -> int:
    """Call the other node; returns the error number, 0 if it answered."""
    await there.travel()
    if Cut.RESET in (there.cut, back.cut):
        code = errno.ECONNRESET
    elif there.cut is Cut.REFUSE:
        code = errno.ECONNREFUSED
    else:
        code = await far.dial(call)
    await back.travel()
    return code


class Far:
    """The connection to the node that is called, closed whatever happens."""

    def __init__(self) -> None:
        self.sock: socket.socket | None = None

    async def dial(self, call: Call) -> int:
        """Returns the error number, 0 if connected."""
        loop = asyncio.get_running_loop()
        try:
            infos = await loop.getaddrinfo(call.host, call.port, type=socket.SOCK_STREAM)
            family, kind, proto, _, target = infos[0]
            self.sock = socket.socket(family, kind, proto)
            self.sock.setblocking(False)
            bound_buffers(self.sock)
            await loop.sock_connect(self.sock, target)
        except OSError as error:
            # A name that is not known has no error number of the system's.
            return error.errno if error.errno and error.errno > 0 else errno.EHOSTUNREACH
        return 0

    def close(self) -> None:
        """Idempotent."""
        if self.sock is not None:
            self.sock.close()


async def _unless_hung_up(near: socket.socket, work: Coroutine[Any, Any, int]) -> int | None:
    """The result, None if the caller went away before; it says nothing until it is answered."""
    doing = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(near, 1))
    try:
        await asyncio.wait({doing, listening}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        listening.cancel()
        await asyncio.gather(doing, listening, return_exceptions=True)
