"""Ports of this machine where nobody is, and that nobody gets meanwhile."""

from __future__ import annotations

import socket

from lightning_chaos.transport.address import Address


class EmptyPlace:
    """A port of loopback where calls are refused, until it is closed.

    A port that was free a moment ago may be anybody's now: others are given free ones all the time.
    This one is given to nobody unasked; who asks for its number may have it, as nobody listens.
    """

    def __init__(self) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(("127.0.0.1", 0))
        self.address = Address(*self._sock.getsockname())

    def close(self) -> None:
        """Let go of it."""
        self._sock.close()

    def __enter__(self) -> EmptyPlace:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
