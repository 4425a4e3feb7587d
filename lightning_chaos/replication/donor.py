"""The donor: serves the shards of its image to learners, at the pace of each link."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from lightning_chaos.errors import WireError
from lightning_chaos.protocol.values import Uid
from lightning_chaos.replication.image import StateImage
from lightning_chaos.replication.shard_channel import Heard, ShardChannel
from lightning_chaos.replication.wire import (
    Ask,
    LocalReply,
    ManifestReply,
    NotYet,
    Refuse,
    Shard,
    Train,
    Want,
    WantLocal,
)
from lightning_chaos.transport.pacer import Pacer
from lightning_chaos.transport.train import TRAIN_BYTES, TRAIN_WRITE_BYTES

PIECE_BYTES = 64 << 10
"""At most so much leaves at once, so that other traffic of the link gets its turns."""
NOT_YET_EVERY_S = 0.25
_SERVED = Refuse("it goes on training and serves this state no more")
_TINY_WAIT_S = 0.0005
"""Shorter waits are left to grow: the pacer books time, it does not forget it."""


@dataclass(frozen=True, slots=True)
class _Offer:
    image: StateImage
    learners: frozenset[Uid]


@dataclass(slots=True, eq=False)
class _Service:
    """A connection that an offer is being served on."""

    channel: ShardChannel
    within_shard: bool = False


class Donor:
    """Serves one image at a time to any number of learners.

    All methods belong to one event loop.  The training thread must hold still between
    :meth:`offer` and :meth:`withdraw`: the image shows live memory.

    Args:
        run: id of the run; who asks for another is refused.
        pacer_for: the speed limit of the link to a learner.
        tls: context for the handshake, None for plain bytes.
        patience_s: longest wait, in seconds, for the first message of a connection, for an image
            that is not offered yet, and for a learner that reads nothing.
    """

    def __init__(
        self,
        run: str,
        pacer_for: Callable[[Uid], Pacer],
        tls: ssl.SSLContext | None,
        *,
        patience_s: float = 60.0,
    ) -> None:
        self._run = run
        self._pacer_for = pacer_for
        self._tls = tls
        self._patience_s = patience_s
        self._offer: _Offer | None = None
        self._over: dict[Uid, Refuse] = {}
        self._changed = asyncio.Event()
        self._services: set[_Service] = set()
        self._tasks: set[asyncio.Task[object]] = set()

    def offer(self, image: StateImage, learners: Collection[Uid]) -> None:
        """Serve this image to these learners from now on."""
        self._end_offer()
        self._offer = _Offer(image, frozenset(learners))
        self._changed.set()

    def decline(self, reason: str, learners: Collection[Uid]) -> None:
        """There is nothing to serve to these learners."""
        self._end_offer()
        self._over.update(dict.fromkeys(learners, Refuse(reason, final=True)))
        self._changed.set()

    def withdraw(self) -> None:
        """Serve no more: training goes on, and the image is no longer true."""
        self._end_offer()
        self._changed.set()

    async def serve(self, sock: socket.socket) -> str:
        """Serve one accepted connection until it closes; it owns the socket.

        Returns:
            Why it ended, '' when the learner closed it.
        """
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        channel: ShardChannel | None = None
        try:
            async with asyncio.timeout(self._patience_s):
                channel = await ShardChannel.over(sock, tls=self._tls, server_side=True)
            return await self._converse(channel)
        except (OSError, WireError) as error:
            return str(error) or type(error).__name__
        finally:
            self._tasks.discard(task)
            if channel is not None:
                if not channel.closing:
                    channel.abort()
                await channel.wait_closed()

    async def aclose(self) -> None:
        """End every connection and wait until they have ended."""
        self.withdraw()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end_offer(self) -> None:
        if self._offer is None:
            return
        self._over.update(dict.fromkeys(self._offer.learners, _SERVED))
        self._offer = None
        for service in self._services:
            if service.within_shard:
                service.channel.abort()
            else:
                service.channel.send(_SERVED)
                service.channel.close()

    async def _converse(self, channel: ShardChannel) -> str:
        ask = await channel.receive(self._patience_s)
        if ask is None:
            return ""
        if not isinstance(ask, Ask):
            return _refuse(channel, Refuse(f"the first message is {type(ask).__name__}, not Ask"))
        if ask.run != self._run:
            return _refuse(channel, Refuse(f"this is run {self._run!r}, not {ask.run!r}"))
        pacer = self._pacer_for(ask.learner)
        await self._send_train(channel, pacer)
        found = await self._image_for(ask, channel)
        if isinstance(found, Refuse):
            return _refuse(channel, found)
        service = _Service(channel)
        self._services.add(service)
        try:
            channel.send(ManifestReply(found.image.manifest))
            while (message := await channel.receive()) is not None:
                if self._offer is not found:
                    return "withdrawn"
                if problem := await self._answer(message, found, service, pacer):
                    return _refuse(channel, Refuse(problem))
            return ""
        finally:
            self._services.discard(service)

    async def _image_for(self, ask: Ask, channel: ShardChannel) -> _Offer | Refuse:
        """The offer asked for as soon as it is there, or why there is none."""
        try:
            async with asyncio.timeout(self._patience_s):
                while not channel.closing:
                    if self._offer is not None and ask.learner in self._offer.learners:
                        return self._offer
                    if ask.learner in self._over:
                        return self._over[ask.learner]
                    channel.send(NotYet())
                    self._changed.clear()
                    await _wait_briefly(self._changed)
        except TimeoutError:
            return Refuse(f"no state to serve within {self._patience_s:g} s")
        return Refuse("the learner has gone")

    async def _answer(self, message: Heard, offer: _Offer, service: _Service, pacer: Pacer) -> str:
        """Serve one request; returns what was wrong with it, if anything."""
        match message:
            case WantLocal():
                service.channel.send(LocalReply(offer.image.local))
                await service.channel.drain(self._patience_s)
            case Want(index) if 0 <= index < offer.image.manifest.shards:
                service.within_shard = True
                await self._send_shard(index, offer, service.channel, pacer)
                service.within_shard = False
            case Want(index):
                return f"there is no shard {index}"
            case _:
                return f"a learner does not say {type(message).__name__}"
        return ""

    async def _send_train(self, channel: ShardChannel, pacer: Pacer) -> None:
        """Before the image is there, when the link has nothing else to do; no bytes twice alike,
        so that nothing on the way can make them fewer."""
        channel.send(Train(TRAIN_BYTES))
        data = memoryview(os.urandom(TRAIN_BYTES))
        for start in range(0, TRAIN_BYTES, TRAIN_WRITE_BYTES):
            wait_s = pacer.reserve(TRAIN_WRITE_BYTES)
            if wait_s > _TINY_WAIT_S:
                await asyncio.sleep(wait_s)
            channel.send_raw(data[start : start + TRAIN_WRITE_BYTES], apart=True)
        await channel.drain(self._patience_s)

    async def _send_shard(
        self, index: int, offer: _Offer, channel: ShardChannel, pacer: Pacer
    ) -> None:
        offset, length = offer.image.manifest.span(index)
        channel.send(Shard(index, length))
        for piece in _pieces(offer.image.read(offset, length)):
            wait_s = pacer.reserve(len(piece))
            if wait_s > _TINY_WAIT_S:
                await asyncio.sleep(wait_s)
            if self._offer is not offer or channel.closing:
                return  # withdrawn (the memory may change from here on), or nobody listens
            channel.send_raw(piece)
            await channel.drain(self._patience_s)


def _refuse(channel: ShardChannel, refusal: Refuse) -> str:
    channel.send(refusal)
    channel.close()
    return refusal.reason


async def _wait_briefly(event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(NOT_YET_EVERY_S):
            await event.wait()
    except TimeoutError:
        pass


def _pieces(views: Iterable[memoryview]) -> Iterator[bytes | memoryview]:
    """The same bytes in pieces of at most 64 KiB: large views cut, runs of small ones joined."""
    small: list[memoryview] = []
    size = 0
    for view in views:
        for start in range(0, len(view), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            if size + len(piece) > PIECE_BYTES:
                yield small[0] if len(small) == 1 else b"".join(small)
                small, size = [], 0
            small.append(piece)
            size += len(piece)
    if small:
        yield small[0] if len(small) == 1 else b"".join(small)
