"""How one node reaches another: the seam where relays and tests come in."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, Protocol

from lightning_chaos.transport.address import Address
from lightning_chaos.transport.door import Kind, preamble


def send_at_once(sock: socket.socket) -> None:
    """Do not hold small messages back (asyncio sees to that only where it made the socket)."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


_LOW_LATENCY_DATA = 18 << 2
"""Class AF21 (RFC 4594) in the field for it in IP's header."""
_INTERACTIVE = 6
"""Of Linux's priorities the highest that needs no privilege."""


def send_first(sock: socket.socket) -> None:
    """Ask this machine and the routers on the way to let this connection pass bulk data.

    What it carries must be little.  Nobody has to heed it.
    """
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _LOW_LATENCY_DATA)
    elif sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _LOW_LATENCY_DATA)
    # Afterwards: the kernel derives another one from the class.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _INTERACTIVE)


class Dialler(Protocol):
    """Opens a connection; everything that dials takes one as an argument."""

    async def __call__(self, address: Address, timeout_s: float) -> socket.socket:
        """A connected, non-blocking stream socket.

        Raises:
            OSError: refused, unreachable or not connected within ``timeout_s`` seconds.
        """
        ...


async def dial_tcp(address: Address, timeout_s: float) -> socket.socket:
    """Plain TCP, small messages sent at once."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            family, kind, proto, _, target = await look_up(address)
            sock = socket.socket(family, kind, proto)
            try:
                sock.setblocking(False)
                send_at_once(sock)
                await loop.sock_connect(sock, target)
            except BaseException:
                sock.close()
                raise
    except TimeoutError:
        raise OSError(f"{address} did not answer within {timeout_s:g} s") from None
    return sock


async def look_up(address: Address) -> tuple[int, int, int, str, Any]:
    """What to connect to; a numeric address is one already, and costs no thread.

    Raises:
        OSError: there is no such name or port.
    """
    if not 0 < address.port < 1 << 16:  # the resolver would take another one
        raise OSError(f"{address} is no address: there is no such port")
    loop, wanted = asyncio.get_running_loop(), socket.SOCK_STREAM
    try:
        with contextlib.suppress(socket.gaierror):
            return socket.getaddrinfo(*address, type=wanted, flags=socket.AI_NUMERICHOST)[0]
        return (await loop.getaddrinfo(*address, type=wanted))[0]
    except ValueError as error:  # others may tell of any name
        raise OSError(f"{address} is no address: {error}") from None


async def dial(dialler: Dialler, address: Address, kind: Kind, timeout_s: float) -> socket.socket:
    """A connection that has said what it is for.

    Raises:
        OSError: see :class:`Dialler`.
    """
    sock = await dialler(address, timeout_s)
    try:
        await asyncio.get_running_loop().sock_sendall(sock, preamble(kind))
    except BaseException:
        sock.close()
        raise
    return sock


async def speak(
    protocol: asyncio.BaseProtocol,
    sock: socket.socket,
    *,
    tls: ssl.SSLContext | None = None,
    server_side: bool = False,
    server_hostname: str = "",
) -> None:
    """Let a protocol speak over a connected socket, which is its transport's from now on.

    Args:
        protocol: of asyncio.
        sock: connected stream socket, preamble done.
        tls: context for the handshake, None for plain bytes.
        server_side: True on the accepting side (matters for TLS only).
        server_hostname: name the server's certificate is checked against.

    Raises:
        OSError: the handshake failed; the socket is closed.
    """
    loop = asyncio.get_running_loop()
    try:
        send_at_once(sock)
        if server_side:
            await loop.connect_accepted_socket(lambda: protocol, sock, ssl=tls)
        else:
            name = server_hostname if tls else None
            await loop.create_connection(lambda: protocol, sock=sock, ssl=tls, server_hostname=name)
    except BaseException:
        sock.close()
        raise
