"""Dialling by way of a relay: how a lab puts itself between nodes that it does not change.

A relay (``lightning_chaos.testing.lab``) takes the place of the network.  A node that is told of
one dials it instead of the other node, says who calls whom, and hears what became of the call;
from then on the connection is the other node's.

    call    2 bytes length, msgpack of :class:`Call`
    answer  4 bytes, 0 or the error number of the call
"""

from __future__ import annotations

import asyncio
import os
import socket

import msgspec

from lightning_chaos.errors import AddressError, WireError
from lightning_chaos.transport.address import Address, is_loopback, parse_address
from lightning_chaos.transport.dial import Dialler, dial_tcp

MAX_CALL_BYTES = 1024
ANSWER_BYTES = 4


class Call(msgspec.Struct, frozen=True):
    """Who wants to speak to whom."""

    node: str
    """Name of the node that calls."""
    host: str
    """Where the other node's door is."""
    port: int


class RelayedDialler:
    """Calls through a relay; a :class:`Dialler`.

    Args:
        relay: where the relay listens.
        node: name of this node.
    """

    def __init__(self, relay: Address, node: str) -> None:
        self._relay = relay
        self._node = node

    async def __call__(self, address: Address, timeout_s: float) -> socket.socket:
        """See :class:`Dialler`; what the relay met is raised as if it had been met here."""
        try:
            async with asyncio.timeout(timeout_s):
                sock = await self._reach_relay(timeout_s)
                try:
                    await _call(sock, Call(self._node, *address))
                except BaseException:
                    sock.close()
                    raise
        except TimeoutError:
            raise OSError(f"{address} did not answer within {timeout_s:g} s") from None
        return sock

    async def _reach_relay(self, timeout_s: float) -> socket.socket:
        try:
            return await dial_tcp(self._relay, timeout_s)
        except OSError as error:
            raise OSError(
                f"the relay {self._relay} (CHAOS_RELAY) cannot be reached: {error}"
            ) from None


def dialler_for(relay: str, node: str) -> Dialler:
    """The dialler of a node: plain TCP, or through a relay if one is named.

    Args:
        relay: ``host:port`` of the relay on this machine, '' for none.
        node: name of this node.

    Raises:
        AddressError: the relay's address is malformed or not loopback.
    """
    if not relay:
        return dial_tcp
    address = parse_address(relay)
    if not is_loopback(address.host):
        raise AddressError(
            f"CHAOS_RELAY={relay!r}: a relay is a tool for tests and must be on this machine; "
            "give it a loopback address, or unset the variable to dial nodes directly"
        )
    return RelayedDialler(address, node)


async def receive_call(sock: socket.socket) -> Call:
    """Read what a caller wants from a non-blocking socket.

    Raises:
        WireError: it is no call.
        OSError: the connection broke.
    """
    length = int.from_bytes(await _exactly(sock, 2), "big")
    if length > MAX_CALL_BYTES:
        raise WireError(f"a call of {length} bytes, allowed are {MAX_CALL_BYTES}")
    try:
        return msgspec.msgpack.decode(await _exactly(sock, length), type=Call)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"not a call: {error}") from None


async def _call(sock: socket.socket, call: Call) -> None:
    data = msgspec.msgpack.encode(call)
    await asyncio.get_running_loop().sock_sendall(sock, len(data).to_bytes(2, "big") + data)
    try:
        code = int.from_bytes(await _exactly(sock, ANSWER_BYTES), "big")
    except WireError:
        raise ConnectionResetError("the relay hung up") from None
    if code:
        raise OSError(code, os.strerror(code))


async def _exactly(sock: socket.socket, size: int) -> bytes:
    """That many bytes and not one more: the rest belongs to the connection."""
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < size:
        part = await loop.sock_recv(sock, size - len(data))
        if not part:
            raise WireError(f"closed after {len(data)} of {size} bytes")
        data += part
    return data
