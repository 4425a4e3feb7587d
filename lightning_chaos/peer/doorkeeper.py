"""The node's one door: control connections stay with the peer, data goes on to the worker."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine

from lightning_chaos.errors import WireError
from lightning_chaos.transport.door import Kind, receive_kind

_RETRY_S = 0.1
_logger = logging.getLogger(__name__)


class Doorkeeper:
    """Accepts connections and sorts them by what they are for.

    Args:
        door: listening, non-blocking.
        handover: packet socket over which the worker gets data connections, their preamble
            read: one byte of :class:`Kind` with the file descriptor.
        adopt: takes control connections.
        spawn: starts a task whose failure ends the process.
    """

    def __init__(
        self,
        door: socket.socket,
        handover: socket.socket,
        adopt: Callable[[socket.socket], Awaitable[None]],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
    ) -> None:
        self._door = door
        self._handover = handover
        self._adopt = adopt
        self._spawn = spawn
        self._guests: set[asyncio.Task[None]] = set()
        self._greets = asyncio.Event()

    def greet(self) -> None:
        """From now on control connections are greeted; until then they wait."""
        self._greets.set()

    async def run(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    sock, _ = await loop.sock_accept(self._door)
                except OSError as error:
                    _logger.warning("cannot accept a connection: %s", error)
                    await asyncio.sleep(_RETRY_S)
                    continue
                task = self._spawn(self._take_in(sock))
                self._guests.add(task)
                task.add_done_callback(self._guests.discard)
        finally:
            for task in self._guests:
                task.cancel()

    async def _take_in(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            kind = await receive_kind(sock)
            if kind is Kind.CONTROL:
                await self._greets.wait()
        except WireError as error:
            _logger.warning("refused a connection: %s", error)
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        if kind is Kind.CONTROL:
            await self._adopt(sock)
            return
        with sock:
            try:
                socket.send_fds(self._handover, [bytes((kind,))], [sock.fileno()])
            except OSError as error:
                # Full or closed: the worker does not look, so the caller must come again.
                _logger.warning("cannot hand a connection to the worker: %s", error)
