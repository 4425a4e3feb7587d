"""One inbound port per node, whatever the connection is for.

Every connection begins with eight bytes in the clear that say what it is for, so that the
peer, who owns the door, can hand a data connection on to the worker before anything else
(a TLS handshake, say) has been read.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import socket

from lightning_chaos.errors import AddressError, WireError

MAGIC = b"CHAOS\x01"
PREAMBLE_BYTES = 8
PREAMBLE_TIMEOUT_S = 5.0


class Kind(enum.IntEnum):
    """What a connection is for."""

    CONTROL = 1
    """Between two peers."""
    DATA = 2
    """Rounds, between two workers."""
    SHARDS = 3
    """A newcomer's worker pulls state from a donor's worker."""


def preamble(kind: Kind) -> bytes:
    """The first bytes of a connection."""
    return MAGIC + bytes((int(kind), 0))


def parse_preamble(data: bytes) -> Kind:
    """What the connection is for.

    Raises:
        WireError: the bytes are not ours or of another version.
    """
    if len(data) != PREAMBLE_BYTES or data[:5] != MAGIC[:5]:
        raise WireError(f"not a lightning-chaos connection (it begins with {data!r})")
    if data[5:6] != MAGIC[5:6] or data[7] != 0:
        raise WireError(f"connection of another wire version ({data!r})")
    try:
        return Kind(data[6])
    except ValueError:
        raise WireError(f"connection of unknown kind {data[6]}") from None


async def receive_kind(sock: socket.socket) -> Kind:
    """Read the preamble of an accepted, non-blocking socket.

    Raises:
        WireError: not ours, or nothing came within :data:`PREAMBLE_TIMEOUT_S`.
    """
    loop = asyncio.get_running_loop()
    data = b""
    try:
        async with asyncio.timeout(PREAMBLE_TIMEOUT_S):
            while len(data) < PREAMBLE_BYTES:
                part = await loop.sock_recv(sock, PREAMBLE_BYTES - len(data))
                if not part:
                    raise WireError("connection closed before it said what it is for")
                data += part
    except TimeoutError:
        raise WireError("connection did not say what it is for in time") from None
    except OSError as error:
        raise WireError(f"connection broke before it said what it is for: {error}") from None
    return parse_preamble(data)


def open_door(host: str, port: int) -> socket.socket:
    """A listening, non-blocking socket; port 0 takes any free one.

    Raises:
        AddressError: the port is in use or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        elsewhere = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        advice = (
            "an address of this machine (host=, CHAOS_HOST)"
            if elsewhere
            else "another port (port=, CHAOS_PORT; 0 takes any free one)"
        )
        raise AddressError(
            f"cannot listen on {host}:{port}: {error.strerror}. Give this node {advice}"
        ) from None
    sock.setblocking(False)
    return sock
