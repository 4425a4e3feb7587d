"""The lab's hand on its relay process: places nodes, shapes, cuts and heals links."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading

from typing_extensions import override

from lightning_chaos.errors import ConfigError
from lightning_chaos.testing.lab.conditions import Cut, Shape
from lightning_chaos.testing.lab.network import Network
from lightning_chaos.testing.lab.orders import (
    Ask,
    Order,
    Place,
    SetCut,
    SetShape,
    Standing,
    encode_line,
    standing_decoder,
)
from lightning_chaos.testing.lab.rules import Pair
from lightning_chaos.transport.address import Address

HOST = "127.0.0.1"
_ANSWER_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 5.0


class Relays(Network):
    """A process that takes the place of the network between nodes of this machine.

    Nodes that are started with :meth:`env_for` dial it instead of each other.  Conditions hold
    for every node that was or will be started; the latest word about a pair counts.  Use it as a
    context manager, around the nodes: at its end the process is gone.

    Args:
        seed: of the jitter.
    """

    def __init__(self, seed: int = 0) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "lightning_chaos.testing.lab.relay_process"),
                    *(str(theirs.fileno()), str(seed)),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        ours.settimeout(_ANSWER_TIMEOUT_S)
        self._socket = ours
        self._stream = ours.makefile("rb")
        self._lock = threading.Lock()
        self._doors: dict[str, socket.socket] = {}
        try:
            self.address = Address(HOST, self._hear().port)
        except BaseException:
            self.close()
            raise

    # ---- nodes -----------------------------------------------------------------------------

    @override
    def env_for(self, node: str) -> dict[str, str]:
        """Variables that put a node behind the relay; its port is kept free for it."""
        if node not in self._doors:
            self._doors[node] = _keep_port()
            self.place(node, Address(*self._doors[node].getsockname()))
        port = self._doors[node].getsockname()[1]
        return {"CHAOS_RELAY": str(self.address), "CHAOS_PORT": str(port), "CHAOS_NODE": node}

    def place(self, node: str, address: Address) -> None:
        """Say where a node's door is; only for nodes without :meth:`env_for`."""
        self._order(Place(node, *address))

    # ---- links -----------------------------------------------------------------------------

    @override
    def check(self, what: Shape | Cut) -> None:
        """See :class:`Network`; relays carry bytes, so there are no packets to lose or to queue."""
        if isinstance(what, Shape) and (what.loss_percent or what.queue_kib is not None):
            raise ConfigError(
                f"loss_percent={what.loss_percent:g}, queue_kib={what.queue_kib}: relays carry "
                "bytes, not packets; loss and queues need namespaces (root)"
            )

    @override
    def shape_one_way(self, shape: Shape, source: str, target: str) -> None:
        """From ``source`` to ``target`` links are like this from now on."""
        self.check(shape)
        self._order(SetShape(source, target, shape))

    @override
    def cut_one_way(self, source: str, target: str, how: Cut = Cut.SILENT) -> None:
        """Cut links from ``source`` to ``target`` alone."""
        self._order(SetCut(source, target, how))

    # ---- watching --------------------------------------------------------------------------

    @override
    def carried_bytes(self) -> dict[Pair, int]:
        """Bytes that arrived so far, by (from, to)."""
        return {(source, target): count for source, target, count in self._order(Ask()).carried}

    def connections(self) -> int:
        """Connections that are carried, or called for, at this moment."""
        return self._order(Ask()).connections

    # ---- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Reset what is carried and end the process.  Idempotent."""
        self._stream.close()
        self._socket.close()
        for door in self._doors.values():
            door.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Relays:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _order(self, order: Order) -> Standing:
        with self._lock:
            with contextlib.suppress(OSError):  # then there is no answer either
                self._socket.sendall(encode_line(order))
            return self._hear()

    def _hear(self) -> Standing:
        try:
            line = self._stream.readline()
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the relay process does not answer: {error}") from error
        if not line:
            raise RuntimeError("the relay process has ended; see what it printed")
        return standing_decoder.decode(line)


def _keep_port() -> socket.socket:
    """A port that nobody gets unasked, but that a node may open its door on."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, 0))
    return sock
