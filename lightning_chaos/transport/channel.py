"""Whole messages over a byte stream: four bytes of length, then that many bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

from lightning_chaos.errors import WireError
from lightning_chaos.transport.dial import send_at_once

MAX_MESSAGE_BYTES = 16 << 20


class Channel:
    """Sends and receives whole messages; one reader, any number of senders."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

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
        reader = asyncio.StreamReader(limit=1 << 16, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        if server_side:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=tls)
        else:
            transport, _ = await loop.create_connection(
                lambda: protocol,
                sock=sock,
                ssl=tls,
                server_hostname=server_hostname if tls else None,
            )
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Queue one message; a closed channel swallows it (the reader sees the end)."""
        if self._writer.is_closing():
            return
        self._writer.write(len(data).to_bytes(4, "big"))
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the queue is short enough to send more."""
        await self._writer.drain()

    async def receive(self) -> bytes | None:
        """The next message, None at a clean end.

        Raises:
            WireError: truncated, or longer than :data:`MAX_MESSAGE_BYTES`.
        """
        try:
            head = await self._reader.readexactly(4)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise WireError("message truncated in its length") from None
            return None
        except OSError:
            return None
        length = int.from_bytes(head, "big")
        if length > MAX_MESSAGE_BYTES:
            raise WireError(f"message of {length} bytes, allowed are {MAX_MESSAGE_BYTES}")
        try:
            return await self._reader.readexactly(length)
        except asyncio.IncompleteReadError:
            raise WireError(f"message of {length} bytes truncated") from None
        except OSError:
            return None

    @property
    def closing(self) -> bool:
        """True once closed by this side or found broken."""
        return self._writer.is_closing()

    def end(self) -> None:
        """Send what is queued and say that no more comes; the other side is still heard.

        TLS connections cannot be half closed: there it closes.
        """
        if self._writer.can_write_eof():
            self._writer.write_eof()
        else:
            self._writer.close()

    def close(self) -> None:
        """Send what is queued and close."""
        self._writer.close()

    def abort(self) -> None:
        """Close at once, drop what is queued."""
        self._writer.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
