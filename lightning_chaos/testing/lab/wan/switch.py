"""The lab's hand on its switch: orders as text, one answer each."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_chaos.errors import LabError
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.wan.means import compiled_switch

_ANSWER_TIMEOUT_S = 10.0
_END_TIMEOUT_S = 5.0
_MESSAGE_BYTES = 32 << 10
_ANSWER_BYTES = 64 << 10
LEAST_QUEUE_BYTES = 256 << 10
_CARD_QUEUE_S = 0.1


@dataclass(frozen=True, slots=True)
class Card:
    """What a host's network card lets through, Mbit/s on the wire; None for no limit."""

    up_mbit: float | None = None
    down_mbit: float | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """What became of what was sent over a link so far."""

    arrived_bytes: int
    """Payload of TCP or UDP."""
    lost: int
    """Segments lost by chance."""
    dropped: int
    """Segments dropped since a queue was full."""
    cut_off: int
    """Segments that met a cut link."""


class Switch:
    """The process that is the network between hosts; it ends with this one, however that ends.

    Args:
        cards: the file descriptors of the hosts' wires; the switch takes them over.
        seed: of jitter and loss.

    Raises:
        ConfigError: it cannot be compiled here.
    """

    def __init__(self, cards: Sequence[int], seed: int) -> None:
        try:
            binary = compiled_switch()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [str(binary), str(theirs.fileno()), str(seed), *map(str, cards)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *cards),
                    start_new_session=True,
                )
        finally:
            for card in cards:
                os.close(card)
        ours.settimeout(_ANSWER_TIMEOUT_S)
        self._socket = ours
        self._lock = threading.Lock()

    def obey(self, orders: Sequence[str]) -> None:
        """Do this; as many as fit one message take effect in one moment."""
        message = ""
        for order in orders:
            if len(message) + len(order) >= _MESSAGE_BYTES:
                self._ask(message)
                message = ""
            message += order + "\n"
        if message:
            self._ask(message)

    def counts(self, source: int) -> list[Count]:
        """Of the links from that host, in order of their targets."""
        lines = self._ask(f"count {source}").splitlines()
        return [Count(*map(int, line.split())) for line in lines]

    def close(self) -> None:
        """End the process; the hosts lose their cards.  Idempotent."""
        self._socket.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, message: str) -> str:
        with self._lock:
            try:
                self._socket.send(message.encode())
                answer = self._socket.recv(_ANSWER_BYTES).decode()
            except OSError as error:
                raise LabError(f"the switch does not answer: {error}") from error
        if not answer:
            raise LabError("the switch has ended; see what it printed")
        if answer.startswith("not understood"):
            raise LabError(f"the switch: {answer}")
        return answer


def queue_bytes(shape: Shape) -> float:
    """How much may wait for the link's rate."""
    if shape.queue_kib is not None:
        return shape.queue_kib * 1024
    trip_s = 2 * (shape.delay_ms + shape.jitter_ms) / 1e3
    return max(LEAST_QUEUE_BYTES, (shape.bytes_per_s or 0.0) * trip_s)


def link_order(source: int, target: int, shape: Shape) -> str:
    """The order that gives a link this shape."""
    rate, loss = _bits(shape.rate_mbit), shape.loss_percent / 100
    delay_ns, jitter_ns = shape.delay_ms * 1e6, shape.jitter_ms * 1e6
    return (
        f"link {source} {target} {rate:.0f} {delay_ns:.0f} {jitter_ns:.0f} {loss:.9f} "
        f"{queue_bytes(shape):.0f}"
    )


def cut_order(source: int, target: int, cut: bool) -> str:
    """The order that cuts a link, or heals it."""
    return f"cut {source} {target} {cut:d}"


def card_order(host: int, card: Card) -> str:
    """The order that gives a host this network card, with a tenth of a second's queue."""
    words = []
    for rate in (_bits(card.up_mbit), _bits(card.down_mbit)):
        words += [f"{rate:.0f}", f"{max(LEAST_QUEUE_BYTES, rate / 8 * _CARD_QUEUE_S):.0f}"]
    return f"card {host} {' '.join(words)}"


def _bits(mbit: float | None) -> float:
    return 0.0 if mbit is None else mbit * 1e6
