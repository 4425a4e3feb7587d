"""A SHARDS connection: messages both ways, raw shards without passing through stream buffers.

Reading stops whenever something has arrived and goes on when the next thing is asked for, so a
connection holds at most one message or one shard, and a sender is slowed down by TCP alone.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

from lightning_chaos.errors import WireError
from lightning_chaos.replication.inflow import HEAD_BYTES, Heard, Inflow
from lightning_chaos.replication.wire import Pull, encode_pull
from lightning_chaos.transport.dial import send_at_once
from lightning_chaos.transport.packets import PacketSocket
from lightning_chaos.transport.rate import PassiveRate

_WRITE_AHEAD_BYTES = 64 << 10


class ShardChannel(asyncio.BufferedProtocol):
    """One end of a SHARDS connection; one receiver, one sender."""

    def __init__(self, sock: PacketSocket) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._transport: asyncio.Transport | None = None
        self._inflow = Inflow()
        self._rate: PassiveRate | None = None
        self._item: Heard | None = None
        self._error: WireError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._last_byte_t = self._loop.time()
        self._gone = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def over(
        cls,
        sock: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        server_side: bool = False,
        server_hostname: str = "",
    ) -> ShardChannel:
        """A channel over a connected socket, which it owns from now on.

        Args:
            sock: connected stream socket, preamble done.
            tls: context for the handshake, None for plain bytes.
            server_side: True on the accepting side (matters for TLS only).
            server_hostname: name the server's certificate is checked against.

        Raises:
            OSError: the handshake failed.
        """
        loop = asyncio.get_running_loop()
        packets = PacketSocket(sock)
        channel = cls(packets)
        try:
            send_at_once(packets)
            if server_side:
                await loop.connect_accepted_socket(lambda: channel, packets, ssl=tls)
            else:
                name = server_hostname if tls else None
                await loop.create_connection(
                    lambda: channel, sock=packets, ssl=tls, server_hostname=name
                )
        except BaseException:
            packets.close()
            raise
        return channel

    def expect_shards(self, shard_bytes: int) -> None:
        """Take shards of up to so many bytes from now on; before this, a shard is an error."""
        self._sock.stop_stamps()  # trains come before
        self._inflow.expect_shards(shard_bytes)

    def feed(self, rate: PassiveRate) -> None:
        """Tell it of all bytes that come from now on."""
        self._rate = rate

    # ---- receiving -------------------------------------------------------------------------

    async def receive(self, stall_s: float | None = None) -> Heard | None:
        """The next message, shard or train, None at the end of the connection.

        Args:
            stall_s: longest silence tolerated, in seconds; None for no limit.

        Raises:
            WireError: truncated, malformed or oversized bytes came.
            TimeoutError: no byte came for ``stall_s``.
        """
        assert self._transport is not None
        began = self._loop.time()
        if self._item is None and not self._gone.is_set():
            self._transport.resume_reading()
        while self._item is None:
            if self._error is not None:
                raise self._error
            if self._gone.is_set():
                return None
            left = None
            if stall_s is not None:
                left = max(began, self._last_byte_t) + stall_s - self._loop.time()
                if left <= 0:
                    raise TimeoutError(f"sent nothing for {stall_s:g} s")
            self._waiter = self._loop.create_future()
            await asyncio.wait((self._waiter,), timeout=left)
        item, self._item = self._item, None
        return item

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go (called by the transport)."""
        return self._inflow.room

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came (called by the transport)."""
        now_t = self._last_byte_t = self._loop.time()
        if self._rate is not None and not self._inflow.in_train:
            self._rate.received(now_t, nbytes)
        try:
            item = self._inflow.took(nbytes, now_t, self._sock.stamp_t or now_t)
        except WireError as error:
            self._fail(error)
        else:
            if item is not None:
                self._arrived(item)

    def _arrived(self, item: Heard) -> None:
        assert self._transport is not None
        self._item = item
        self._transport.pause_reading()
        self._wake()

    def _fail(self, error: WireError) -> None:
        self._error = error
        self.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- sending ---------------------------------------------------------------------------

    def send(self, message: Pull) -> None:
        """Queue one message; a closed channel swallows it (the receiver sees the end)."""
        data = encode_pull(message)
        self.send_raw(len(data).to_bytes(HEAD_BYTES, "big") + data)

    def send_raw(self, data: bytes | memoryview, *, apart: bool = False) -> None:
        """Queue bytes of what was announced, ``apart``: in packets that carry nothing else.

        Do :meth:`drain` before more than a few.
        """
        assert self._transport is not None
        if not self._transport.is_closing():
            self._sock.apart = apart
            self._transport.write(data)
            self._sock.apart = False

    async def drain(self, stall_s: float) -> None:
        """Wait until more may be sent.

        Raises:
            TimeoutError: the other side has read too little for ``stall_s`` seconds.
        """
        if not self._writable.is_set():
            try:
                async with asyncio.timeout(stall_s):
                    await self._writable.wait()
            except TimeoutError:
                raise TimeoutError(f"read nothing for {stall_s:g} s") from None

    # ---- life ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is up (called by the transport)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_AHEAD_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone (called by the transport)."""
        if exc is not None and self._error is None:
            self._error = WireError(f"connection lost: {exc}")
        self._gone.set()
        self._writable.set()
        self._wake()

    def eof_received(self) -> bool:
        """The other side sends no more (called by the transport)."""
        if self._inflow.within:
            self._fail(WireError(f"connection closed within a {self._inflow.within}"))
        return False

    def pause_writing(self) -> None:
        """Too much is queued (called by the transport)."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Little enough is queued (called by the transport)."""
        self._writable.set()

    @property
    def closing(self) -> bool:
        """True once closed by this side or found broken."""
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        """Send what is queued and close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, drop what is queued."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self, limit_s: float = 5.0) -> None:
        """Wait until the connection is gone; what is still queued after ``limit_s`` is dropped."""
        try:
            async with asyncio.timeout(limit_s):
                await self._gone.wait()
        except TimeoutError:
            self.abort()
            await self._gone.wait()
