"""How a shard leaves: piece by piece, at the pace of the link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from lightning_chaos.replication.shard_channel import ShardChannel
from lightning_chaos.replication.wire import Shard
from lightning_chaos.transport.pacer import Pacer

PIECE_BYTES = 64 << 10
"""At most so much leaves at once, so that other traffic of the link gets its turns."""
_TINY_WAIT_S = 0.0005
"""Shorter waits are left to grow: the pacer books time, it does not forget it."""


async def send_shard(
    announced: Shard,
    views: Iterable[memoryview],
    channel: ShardChannel,
    pacer: Pacer,
    *,
    valid: Callable[[], bool],
    patience_s: float,
) -> None:
    """Send a shard and wait until nearly all of it has left.

    Args:
        announced: which it is, and how long.
        views: its bytes.
        channel: to whom.
        pacer: speed limit of the link.
        valid: asked before each piece; if the bytes are no longer true, nothing more is sent.
        patience_s: longest that the other side may read nothing, seconds.

    Raises:
        TimeoutError: it did.
    """
    channel.send(announced)
    for piece in _pieces(views):
        await wait_turn(pacer, len(piece))
        if not valid() or channel.closing:
            return
        channel.send_raw(piece)
        await channel.drain(patience_s)


async def wait_turn(pacer: Pacer, size: int) -> None:
    """Wait until so many bytes may leave."""
    wait_s = pacer.reserve(size)
    if wait_s > _TINY_WAIT_S:
        await asyncio.sleep(wait_s)


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
