"""Opens control connections: calls other peers, and answers those who call."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from dataclasses import dataclass

from lightning_chaos.errors import ChaosError
from lightning_chaos.peer.greeting import greet
from lightning_chaos.protocol.values import Member
from lightning_chaos.transport.address import Address, check_allowed
from lightning_chaos.transport.channel import Channel
from lightning_chaos.transport.dial import Dialler, dial, dial_tcp, send_first
from lightning_chaos.transport.door import Kind

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """One greeted control connection."""

    member: Member
    """Who is at the other end; it may be this incarnation itself."""
    channel: Channel


class Caller:
    """Dials and greets.

    Args:
        me: this incarnation.
        run: id of the run.
        insecure: whether addresses that are not loopback may be dialled.
        dialler: opens connections.
        tls: context for all connections, None for plain bytes.
    """

    def __init__(
        self,
        me: Member,
        run: str,
        *,
        insecure: bool,
        dialler: Dialler = dial_tcp,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.me = me
        self._run = run
        self._insecure = insecure
        self._dialler = dialler
        self._tls = tls

    async def call(self, address: Address, timeout_s: float) -> Connection:
        """Dial an address and learn who is there.

        Raises:
            AddressError: the address may not be used.
            JoinError: another run or version is there, or it refused this node.
            WireError: something else than a peer is there.
            OSError: nobody answered within ``timeout_s`` seconds.
        """
        check_allowed(address.host, insecure=self._insecure, encrypted=self._tls is not None)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        sock = await dial(self._dialler, address, Kind.CONTROL, timeout_s)
        send_first(sock)
        channel = await Channel.over(sock, tls=self._tls, server_hostname=address.host)
        left_s = max(0.01, deadline - loop.time())
        return Connection(await greet(channel, self.me, self._run, left_s), channel)

    async def answer(self, sock: socket.socket) -> Connection | None:
        """Greet whoever dialled this connection (its preamble is read); None if that fails."""
        name = _name_of(sock)
        try:
            send_first(sock)
            channel = await Channel.over(sock, tls=self._tls, server_side=True)
            return Connection(await greet(channel, self.me, self._run), channel)
        except (OSError, ChaosError) as error:
            _logger.warning("refused a control connection from %s: %s", name, in_words(error))
            return None


def in_words(error: Exception) -> str:
    """What went wrong, for people: asyncio says "Connect call failed" for any reason."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    if isinstance(error, socket.gaierror):
        return str(error.strerror).lower()
    return str(error)


def _name_of(sock: socket.socket) -> str:
    try:
        return str(Address(*sock.getpeername()[:2]))
    except OSError:
        return "nobody"
