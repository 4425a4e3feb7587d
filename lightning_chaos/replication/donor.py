"""The donor: serves the shards of its image to learners, at the pace of each link."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass

from lightning_chaos.errors import WireError
from lightning_chaos.protocol.values import Uid
from lightning_chaos.replication.image import StateImage
from lightning_chaos.replication.inflow import Heard
from lightning_chaos.replication.sending import send_shard, wait_turn
from lightning_chaos.replication.shard_channel import ShardChannel
from lightning_chaos.replication.shelf import NOT_YET_EVERY_S, Shelf
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

_STRANGER_S = 30.0
"""Views reach learner and donor one after the other, but not so far apart, seconds."""
_PARTING_S = 5.0
"""So long a learner may take for the last words before its connection is cut, seconds."""
_SERVED = Refuse("it goes on training and serves this state no more")


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
        self._guests: frozenset[Uid] = frozenset()
        self._offer: _Offer | None = None
        self._shelf: Shelf | None = None
        self._over: dict[Uid, Refuse] = {}
        self._changed = asyncio.Event()
        self._services: set[_Service] = set()
        self._tasks: set[asyncio.Task[object]] = set()

    def admit(self, uids: Collection[Uid]) -> None:
        """From now on these may ask, and nobody else: they have a place in the newest view."""
        self._guests = frozenset(uids)
        self._over = {uid: why for uid, why in self._over.items() if uid in self._guests}
        self._changed.set()

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

    def pass_on(self, shelf: Shelf | None) -> None:
        """Send what is on this shelf, if any, to those it is for: this node pulls as they do."""
        self._shelf = shelf
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
                # One that is stopped reads nothing any more, and would keep the image here.
                asyncio.get_running_loop().call_later(_PARTING_S, service.channel.abort)

    async def _converse(self, channel: ShardChannel) -> str:
        ask = await channel.receive(self._patience_s)
        if ask is None:
            return ""
        if not isinstance(ask, Ask):
            return _refuse(channel, Refuse(f"the first message is {type(ask).__name__}, not Ask"))
        if ask.run != self._run:
            return _refuse(channel, Refuse(f"this is run {self._run!r}, not {ask.run!r}"))
        if not await self._admitted(ask, channel):
            return _refuse(channel, Refuse(f"{ask.learner} has no place in the view known here"))
        pacer = self._pacer_for(ask.learner)
        await self._send_train(channel, pacer)
        found = await self._image_for(ask, channel)
        if isinstance(found, Refuse):
            return _refuse(channel, found)
        if isinstance(found, Shelf):
            await found.serve(channel, pacer, lambda: self._knows(ask.learner), self._patience_s)
            return ""
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

    async def _admitted(self, ask: Ask, channel: ShardChannel) -> bool:
        """Whether who asks has a place; it may hear of that before this donor does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self._patience_s, _STRANGER_S)):
                while not channel.closing:
                    if self._knows(ask.learner):
                        return True
                    await self._not_yet(channel)
        return False

    def _knows(self, uid: Uid) -> bool:
        offered = self._offer is not None and uid in self._offer.learners
        return offered or uid in self._guests or uid in self._over

    async def _image_for(self, ask: Ask, channel: ShardChannel) -> _Offer | Shelf | Refuse:
        """The offer or shelf asked for as soon as it is there, or why there is none."""
        try:
            async with asyncio.timeout(self._patience_s):
                while not channel.closing:
                    if self._offer is not None and ask.learner in self._offer.learners:
                        return self._offer
                    if ask.learner in self._over:
                        return self._over[ask.learner]
                    if self._shelf is not None and ask.learner in self._shelf.fellows:
                        return self._shelf
                    await self._not_yet(channel)
        except TimeoutError:
            return Refuse(f"no state to serve within {self._patience_s:g} s")
        return Refuse("the learner has gone")

    async def _not_yet(self, channel: ShardChannel) -> None:
        """Say so, and wait until something has changed, but not for long."""
        channel.send(NotYet())
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NOT_YET_EVERY_S):
                await self._changed.wait()

    async def _answer(self, message: Heard, offer: _Offer, service: _Service, pacer: Pacer) -> str:
        """Serve one request; returns what was wrong with it, if anything."""
        match message:
            case WantLocal():
                service.channel.send(LocalReply(offer.image.local))
                await service.channel.drain(self._patience_s)
            case Want(index) if 0 <= index < offer.image.manifest.shards:
                offset, length = offer.image.manifest.span(index)
                service.within_shard = True
                await send_shard(
                    Shard(index, length),
                    offer.image.read(offset, length),
                    service.channel,
                    pacer,
                    valid=lambda: self._offer is offer,
                    patience_s=self._patience_s,
                )
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
            await wait_turn(pacer, TRAIN_WRITE_BYTES)
            channel.send_raw(data[start : start + TRAIN_WRITE_BYTES], apart=True)
        await channel.drain(self._patience_s)


def _refuse(channel: ShardChannel, refusal: Refuse) -> str:
    channel.send(refusal)
    channel.close()
    return refusal.reason
