"""Dialling by way of a relay: how a lab puts itself between nodes that it does not change.

A relay (``lightning_chaos.testing.lab``) takes the place of the network.  A node that is told of
one dials it instead of the other node, says who calls whom, and hears what became of the call;
from then on the connection is the other node's.

    call    2 bytes length, then host (numeric), port and name of this node, a zero byte behind each
    answer  4 bytes, 0 or the error number of the call
"""

from __future__ import annotations

import asyncio
import os
import socket

from lightning_chaos.errors import AddressError
from lightning_chaos.transport.address import Address, is_loopback, parse_address
from lightning_chaos.transport.dial import Dialler, dial_tcp, look_up

_ANSWER_BYTES = 4


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
                _, _, _, _, target = await look_up(address)
                sock = await self._reach_relay(timeout_s)
                try:
                    await _call(sock, str(target[0]), str(target[1]), self._node)
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


async def _call(sock: socket.socket, *words: str) -> None:
    loop, data = asyncio.get_running_loop(), b"".join(word.encode() + b"\0" for word in words)
    await loop.sock_sendall(sock, len(data).to_bytes(2, "big") + data)
    answer = b""
    while len(answer) < _ANSWER_BYTES:  # and not one more: the rest belongs to the connection
        part = await loop.sock_recv(sock, _ANSWER_BYTES - len(answer))
        if not part:
            raise ConnectionResetError("the relay hung up")
        answer += part
    if code := int.from_bytes(answer, "big"):
        raise OSError(code, os.strerror(code))
