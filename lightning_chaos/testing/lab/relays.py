"""The lab's hand on its relay process: places nodes, shapes, cuts and heals links."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from typing_extensions import override

from lightning_chaos.errors import ConfigError
from lightning_chaos.testing.lab.conditions import LEAST_HELD_BYTES, MAX_RATE_MBIT, Cut, Shape
from lightning_chaos.testing.lab.native import Native
from lightning_chaos.testing.lab.network import Network
from lightning_chaos.testing.lab.rules import Pair
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.door import open_door

HOST = "127.0.0.1"
KERNEL_BYTES = 64 << 10
"""The kernel's buffer on the relay's side, beside what the relay itself holds."""
_CUTS = (Cut.NONE, Cut.SILENT, Cut.RESET, Cut.REFUSE)
"""By their numbers in ``relay/road.h``."""


class Relays(Network):
    """A process that takes the place of the network between nodes of this machine.

    Nodes that are started with :meth:`env_for` dial it instead of each other.  Conditions hold
    for every node that was or will be started; the latest word about a pair counts.  Use it as a
    context manager, around the nodes: at its end the process is gone.

    Args:
        seed: of the jitter.
    """

    def __init__(self, seed: int = 0) -> None:
        self._doors: dict[str, socket.socket] = {}
        self._orders: list[str] | None = None
        """What is to be said at once, None if everything is said as it comes."""
        with open_door(HOST, 0) as door:
            # Connections have the door's buffers; the kernel doubles what it is asked for.
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                door.setsockopt(socket.SOL_SOCKET, option, KERNEL_BYTES // 2)
            self.address = Address(HOST, door.getsockname()[1])
            figures = KERNEL_BYTES, LEAST_HELD_BYTES, int(MAX_RATE_MBIT * 1e6 / 8)
            self._process = Native(
                "relay", [str(door.fileno()), str(seed), *map(str, figures)], [door.fileno()]
            )

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
        self._say("place", node, address.host, str(address.port))

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
        times_ns = (f"{ms * 1e6:.0f}" for ms in (shape.delay_ms, shape.jitter_ms))
        figures = f"{shape.bytes_per_s or 0:.3f}", *times_ns
        self._say("shape", source, target, *figures)

    @override
    def cut_one_way(self, source: str, target: str, how: Cut = Cut.SILENT) -> None:
        """Cut links from ``source`` to ``target`` alone."""
        self._say("cut", source, target, str(_CUTS.index(how)))

    def reset_one_way(self, source: str, target: str) -> None:
        """Reset what goes from one to the other now; both ways carry what is called for afterwards.

        However busy this process is, that takes no time in which a call could be refused.
        """
        reset, carry = (str(_CUTS.index(how)) for how in (Cut.RESET, Cut.NONE))
        heal = ("\t".join(("cut", *way, carry)) for way in ((source, target), (target, source)))
        self._process.ask("\t".join(("cut", source, target, reset)), "\n".join(heal))

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """What is said inside takes effect at its end, all in one moment.

        Links that are cut one after the other make other views on the way, of those that the last
        ones still join.
        """
        self._orders = []
        try:
            yield
        finally:
            orders, self._orders = self._orders, None
        self._process.obey(orders)

    def _say(self, *words: str) -> None:
        if self._orders is None:
            self._process.obey(["\t".join(words)])
        else:
            self._orders.append("\t".join(words))

    # ---- watching --------------------------------------------------------------------------

    @override
    def carried_bytes(self) -> dict[Pair, int]:
        """Bytes that arrived so far, by (from, to)."""
        found: dict[Pair, int] = {}
        roads = 1
        while len(found) < roads:
            first, *lines = self._process.ask(f"count\t{len(found)}").splitlines()
            roads = int(first.split()[1])
            for source, target, count in (line.split("\t") for line in lines):
                found[source, target] = int(count)
        return found

    def connections(self) -> int:
        """Connections that are carried, or called for, at this moment."""
        return int(self._process.ask("count\t0").split()[0])

    # ---- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Reset what is carried and end the process.  Idempotent."""
        self._process.close()
        for door in self._doors.values():
            door.close()

    def __enter__(self) -> Relays:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _keep_port() -> socket.socket:
    """A port that nobody gets unasked, but that a node may open its door on."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, 0))
    return sock
