"""What a newcomer passes on to those that pull the same state at the same time.

What members have sent it and has proved right it sends on unasked, in the order in which it came.
A fellow asks the members first for other shards (see :class:`~.schedule.Portion`), so what it gets
from here it has not asked anybody for yet; and as nobody has promised it anything, it waits for
nobody: members are asked for all that does not come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

from lightning_chaos.protocol.values import Uid
from lightning_chaos.replication.image import Manifest
from lightning_chaos.replication.sending import send_shard
from lightning_chaos.replication.shard_channel import ShardChannel
from lightning_chaos.replication.wire import ManifestReply, NotYet, Shard
from lightning_chaos.transport.pacer import Pacer

NOT_YET_EVERY_S = 0.25


class Shelf:
    """Shards that came from members, for fellows.

    Args:
        fellows: who may have them.
    """

    def __init__(self, fellows: Collection[Uid]) -> None:
        self.fellows = frozenset(fellows)
        self._manifest: Manifest | None = None
        self._buffer = memoryview(b"")
        self._order: list[int] = []
        self._more = asyncio.Event()

    def open(self, manifest: Manifest, buffer: memoryview) -> None:
        """It is known which state is pulled.

        Args:
            manifest: of that state.
            buffer: where it grows; what has come does not change any more.
        """
        self._manifest, self._buffer = manifest, buffer
        self._tell()

    def put(self, index: int) -> None:
        """This shard has come from a member and is right."""
        self._order.append(index)
        self._tell()

    async def serve(
        self, channel: ShardChannel, pacer: Pacer, wanted: Callable[[], bool], patience_s: float
    ) -> None:
        """Send on what comes until the fellow has closed, or is a fellow no more.

        Args:
            channel: to the fellow.
            pacer: speed limit of the link.
            wanted: whether it still is one.
            patience_s: longest that it may read nothing, seconds.

        Raises:
            TimeoutError: it did.
        """
        sent, greeted = 0, False
        while wanted() and not channel.closing:
            if self._manifest is not None and not greeted:
                channel.send(ManifestReply(self._manifest))
                greeted = True
            if self._manifest is None or sent == len(self._order):
                channel.send(NotYet())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(NOT_YET_EVERY_S):
                        await self._more.wait()
                continue
            index = self._order[sent]
            offset, length = self._manifest.span(index)
            data = self._buffer[offset : offset + length]
            shard = Shard(index, length)
            await send_shard(shard, [data], channel, pacer, valid=wanted, patience_s=patience_s)
            sent += 1

    def _tell(self) -> None:
        self._more.set()
        self._more = asyncio.Event()
