"""Whole messages over a byte stream: four bytes of length, then that many bytes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable

from typing_extensions import override

from lightning_chaos.errors import WireError
from lightning_chaos.transport.dial import send_at_once

MAX_MESSAGE_BYTES = 16 << 20
_HEAD_BYTES = 4
_MOST_HELD_BYTES = 128 << 10
"""Of messages that nobody has asked for yet: beyond, the connection is not read."""


class Channel(asyncio.Protocol):
    """Sends and receives whole messages; one reader, any number of senders.

    The reader either asks for one after the other (:meth:`receive`) or has them handed over as
    they come in (:meth:`listen`), without a turn of the event loop in between.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._bytes = bytearray()
        """Begin of a message."""
        self._messages: deque[bytes] = deque()
        self._held_bytes = 0
        self._take: Callable[[bytes], None] | None = None
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        """Nothing more comes."""
        self._problem: Exception | None = None
        self._closed = asyncio.Event()

    @classmethod
    async def over(
        cls,
        sock: socket.socket,
        *,
        tls: ssl.SSLContext | None = None,
        server_side: bool = False,
        server_hostname: str = "",
    ) -> Channel:
        """A channel over a connected socket, which it owns from now on.

        Args:
            sock: connected stream socket.
            tls: context for the handshake, None for plain bytes.
            server_side: True on the accepting side (matters for TLS only).
            server_hostname: name the server's certificate is checked against.
        """
        loop = asyncio.get_running_loop()
        send_at_once(sock)
        if server_side:
            _, channel = await loop.connect_accepted_socket(cls, sock, ssl=tls)
        else:
            _, channel = await loop.create_connection(
                cls, sock=sock, ssl=tls, server_hostname=server_hostname if tls else None
            )
        return channel

    # ---- sending ---------------------------------------------------------------------------

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Queue one message; a closed channel swallows it (the reader sees the end)."""
        if not self.closing:
            # In one piece: each write is a packet, and wakes the other side up.
            head = len(data).to_bytes(_HEAD_BYTES, "big")
            self._transport.write(b"".join((head, data)))

    @property
    def queued_bytes(self) -> int:
        """What is sent and not yet taken by the system."""
        return self._transport.get_write_buffer_size()

    # ---- receiving -------------------------------------------------------------------------

    async def receive(self) -> bytes | None:
        """The next message, None at a clean end.

        Raises:
            WireError: truncated, or longer than :data:`MAX_MESSAGE_BYTES`.
        """
        while not self._messages:
            if self._over.is_set():
                self._raise_problem()
                return None
            self._news.clear()
            await self._news.wait()
        message = self._messages.popleft()
        self._held_bytes -= len(message)
        if not self._messages:
            self._transport.resume_reading()
        return message

    async def listen(self, take: Callable[[bytes], None]) -> None:
        """Hand over every message as it comes in, until the end.

        Args:
            take: called with each message; what it raises ends the listening and is raised here.

        Raises:
            WireError: truncated, or longer than :data:`MAX_MESSAGE_BYTES`.
        """
        self._take = take
        self._transport.resume_reading()
        self._hand_over()
        try:
            await self._over.wait()
        finally:
            self._take = None
        self._raise_problem()

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise self._problem

    # ---- what the event loop says ----------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        if self._over.is_set():
            return
        self._bytes += data
        problem = self._split()
        self._hand_over()
        if problem is not None:
            self._finish(problem)
        elif self._held_bytes > _MOST_HELD_BYTES:
            self._transport.pause_reading()
        self._news.set()

    @override
    def eof_received(self) -> bool:
        self._finish(WireError("message truncated") if self._bytes else None)
        # What is queued is still sent, but TLS connections cannot be half closed.
        return self._transport.get_extra_info("sslcontext") is None

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(WireError("message truncated") if self._bytes else None)
        self._closed.set()

    def _split(self) -> WireError | None:
        """Take whole messages from the bytes; what is wrong with the next one."""
        at, end = 0, len(self._bytes)
        problem = None
        while end - at >= _HEAD_BYTES:
            begin = at + _HEAD_BYTES
            length = int.from_bytes(self._bytes[at:begin], "big")
            if length > MAX_MESSAGE_BYTES:
                problem = _too_long(self._bytes[at:begin])
                break
            if end - begin < length:
                break
            at = begin + length
            self._messages.append(bytes(self._bytes[begin:at]))
            self._held_bytes += length
        del self._bytes[:at]
        return problem

    def _hand_over(self) -> None:
        while self._take is not None and self._messages:
            message = self._messages.popleft()
            self._held_bytes -= len(message)
            try:
                self._take(message)
            except Exception as error:
                self._take = None
                self._problem = self._problem or error  # also of what was heard before the end
                self._finish(error)

    def _finish(self, problem: Exception | None) -> None:
        if not self._over.is_set():
            self._problem = problem
            self._over.set()
            self._news.set()

    # ---- the end ---------------------------------------------------------------------------

    @property
    def closing(self) -> bool:
        """True once closed by this side or found broken."""
        return self._transport.is_closing()

    def end(self) -> None:
        """Send what is queued and say that no more comes; the other side is still heard.

        TLS connections cannot be half closed: there it closes.
        """
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def close(self) -> None:
        """Send what is queued and close."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once, drop what is queued."""
        self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await self._closed.wait()


def _too_long(head: bytearray) -> WireError:
    """By the length of a message; another service begins with text, as HTTP does."""
    text = head.decode("ascii", "replace")
    if text.isascii() and text.isprintable():
        return WireError(f"no peer of lightning-chaos answers there: it begins with {text!r}")
    length = int.from_bytes(head, "big")
    return WireError(f"message of {length} bytes, allowed are {MAX_MESSAGE_BYTES}")
