"""The place of a node's door, kept by its agent from one worker to the next.

A worker opens the node's listening socket itself, so between two workers nobody listens.  The
agent holds the port meanwhile with a socket that is bound and never listens: the next worker
may still bind it (both say ``SO_REUSEADDR``), the system gives it to nobody else, and a caller
is refused at once.  So a node has one address as long as its agent lives.
"""

from __future__ import annotations

import contextlib
import socket
import time

from lightning_chaos.errors import AddressError
from lightning_chaos.transport.address import Address

_POLL_S = 0.05


class Doorstep:
    """A port of this machine, held until :meth:`close`.

    Args:
        host: name or address of this machine.
        port: 0 takes any free one.

    Raises:
        AddressError: the host is another machine's, somebody listens there, or another agent
            holds it.
    """

    def __init__(self, host: str, port: int) -> None:
        self._sockets = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            try:
                bound = opened.enter_context(_bind(host, port))
                claim = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                ip, self._port = bound.getsockname()[:2]
                # Two sockets that do not listen may be bound to one port; only one can have a
                # name, which lives in the same network namespace and ends with its process.
                claim.bind(f"\0lightning-chaos {ip} {self._port}")
            except OSError as error:
                raise AddressError(
                    f"cannot have {host}:{port} for this node: {error.strerror}. Give it another "
                    "port (--rdzv-conf port=PORT, CHAOS_PORT; 0 takes any free one)"
                ) from None
            self._sockets = opened.pop_all()
        self._host = host

    @property
    def address(self) -> Address:
        """Where the node's door is, or will be."""
        return Address(self._host, self._port)

    def wait_free(self, timeout_s: float) -> bool:
        """Wait until nobody listens there: the peer of the last worker may still be at its end."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                _bind(self._host, self._port).close()
                return True
            except OSError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(_POLL_S)

    def close(self) -> None:
        """Let go of the port.  Idempotent."""
        self._sockets.close()


def is_here(host: str) -> bool:
    """Whether that is a name or address of this machine."""
    try:
        _bind(host, 0).close()
    except OSError:
        return False
    return True


def address_towards(other: Address) -> str:
    """The address of this machine from which the other one is reached.

    Raises:
        AddressError: there is no way to it.
    """
    try:
        family, _, _, _, target = socket.getaddrinfo(*other, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(target)  # sends nothing: only the route is looked up
            return str(sock.getsockname()[0])
    except OSError as error:
        raise AddressError(f"{other} cannot be reached: {error.strerror or error}") from None


def _bind(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock
