"""Traffic between hosts of the lab, made and timed by one process: goodput and round trips."""

from __future__ import annotations

import contextlib
import selectors
import socket
import statistics
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lightning_chaos.testing.lab.rules import Pair

PINGS = 9
_PING = struct.Struct("!dHH")
_APART_S = 0.002
_ANSWER_TIMEOUT_S = 5.0
_CALL_TIMEOUT_S = 10.0
_CHUNK = memoryview(bytes(256 << 10))
_RECEIVE_BYTES = 1 << 20
# A closed connection must not go on with what its buffers hold.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Sockets(Protocol):
    """What traffic needs of a network."""

    def socket(self, node: str, kind: socket.SocketKind) -> socket.socket:
        """An IPv4 socket in the network of the node's host."""
        ...

    def address_of(self, node: str) -> str:
        """The IPv4 address of the node's host."""
        ...


# ---- round trips -----------------------------------------------------------------------------


def round_trips_s(network: Sockets, pairs: Sequence[Pair]) -> dict[Pair, float]:
    """Median time of UDP packets there and back, seconds; to be taken while links are idle.

    Raises:
        TimeoutError: of some pair no packet came back.
    """
    nodes = sorted({node for pair in pairs for node in pair})
    times: dict[Pair, list[float]] = {pair: [] for pair in pairs}
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_bound(network, n, socket.SOCK_DGRAM)) for n in nodes]
        for _ in range(PINGS):
            for pair, seconds in _ping_all(sockets, nodes, pairs):
                times[pair].append(seconds)
    if silent := [pair for pair, found in times.items() if not found]:
        raise TimeoutError(f"no packet came back: {silent}")
    return {pair: statistics.median(found) for pair, found in times.items()}


def _ping_all(
    sockets: Sequence[socket.socket], nodes: Sequence[str], pairs: Sequence[Pair]
) -> Iterator[tuple[Pair, float]]:
    """One packet for each pair, a little apart, and what came back."""
    number = {node: place for place, node in enumerate(nodes)}
    with selectors.DefaultSelector() as selector:
        for place, sock in enumerate(sockets):
            selector.register(sock, selectors.EVENT_READ, place)
        left, waiting = list(pairs), set(pairs)
        begin = next_at = time.perf_counter()
        while waiting and time.perf_counter() < begin + len(pairs) * _APART_S + _ANSWER_TIMEOUT_S:
            if left and time.perf_counter() >= next_at:
                source, target = left.pop()
                words = _PING.pack(time.perf_counter(), number[source], number[target])
                sockets[number[source]].sendto(words, sockets[number[target]].getsockname())
                next_at = time.perf_counter() + _APART_S
            for key, _ in selector.select(max(0.0, next_at - time.perf_counter()) if left else 0.1):
                words, sender = sockets[key.data].recvfrom(_PING.size)
                sent_at, one, two = _PING.unpack(words)
                if key.data == two:
                    sockets[two].sendto(words, sender)
                    continue
                pair = (nodes[one], nodes[two])
                waiting.discard(pair)
                yield pair, time.perf_counter() - sent_at


# ---- goodput ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Stream:
    """A connection of this process with itself, kept full but never over-full.

    How much is under way is bounded here, where both ends are known, and not by congestion
    control: so the link always has something to send, and its queue never drops anything.  What
    is measured is the link and not how TCP recovers from losses.
    """

    near: socket.socket
    far: socket.socket
    window: int
    """Bytes that may be under way."""
    sent: int = 0
    arrived: int = 0

    def fill(self) -> None:
        """Send what may be sent; where the kernel takes less, the next arrival goes on."""
        room = self.window - (self.sent - self.arrived)
        with contextlib.suppress(BlockingIOError):
            while room > 0:
                sent = self.near.send(_CHUNK[:room])
                self.sent += sent
                room -= sent


def goodputs_mbit(
    network: Sockets, windows: Mapping[Pair, int], *, warm_up_s: float, seconds: float
) -> dict[Pair, float]:
    """Payload that one TCP connection for each pair delivers, all at once, Mbit/s.

    Args:
        network: where.
        windows: bytes to keep under way, by from which node to which.
        warm_up_s: how long they send before it counts, seconds.
        seconds: how long it counts.

    Raises:
        TimeoutError: a connection cannot be made.
    """
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        streams = {
            pair: _Stream(near, far, windows[pair])
            for pair, (near, far) in _connected(network, [*windows], stack).items()
        }
        for stream in streams.values():
            selector.register(stream.far, selectors.EVENT_READ, stream)
            stream.fill()
        _carry(selector, warm_up_s)
        before = {pair: stream.arrived for pair, stream in streams.items()}
        begin = time.perf_counter()
        _carry(selector, seconds)
        took = time.perf_counter() - begin
    return {pair: (streams[pair].arrived - before[pair]) * 8e-6 / took for pair in windows}


def _carry(selector: selectors.BaseSelector, seconds: float) -> None:
    """Receive and send for so long."""
    buffer = bytearray(_RECEIVE_BYTES)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for key, _ in selector.select(0.1):
            stream: _Stream = key.data
            stream.arrived += stream.far.recv_into(buffer)
            stream.fill()


def _connected(
    network: Sockets, pairs: Sequence[Pair], stack: contextlib.ExitStack
) -> dict[Pair, tuple[socket.socket, socket.socket]]:
    doors = {
        target: stack.enter_context(_bound(network, target, socket.SOCK_STREAM))
        for _, target in pairs
    }
    node_at = {network.address_of(source): source for source, _ in pairs}
    calling: dict[Pair, socket.socket] = {}
    for source, target in pairs:
        near = stack.enter_context(network.socket(source, socket.SOCK_STREAM))
        # Its slow start ends with a loss alone, and here is none.
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        near.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        near.connect_ex(doors[target].getsockname())
        calling[source, target] = near
    streams = {}
    for _, target in pairs:
        far, (address, _) = doors[target].accept()
        stack.enter_context(far)
        far.setblocking(False)
        source = node_at[address]
        streams[source, target] = (calling[source, target], far)
    return streams


def _bound(network: Sockets, node: str, kind: socket.SocketKind) -> socket.socket:
    sock = network.socket(node, kind)
    sock.bind((network.address_of(node), 0))
    sock.settimeout(_CALL_TIMEOUT_S)
    if kind is socket.SOCK_STREAM:
        sock.listen(128)
    return sock
