"""The lab's hand on its switch: orders as text, one answer each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.native import Native

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


class Switch(Native):
    """The process that is the network between hosts.

    Args:
        cards: the file descriptors of the hosts' wires; the switch takes them over.
        seed: of jitter and loss.

    Raises:
        ConfigError: it cannot be compiled here.
    """

    def __init__(self, cards: Sequence[int], seed: int) -> None:
        try:
            super().__init__("switch", [str(seed), *map(str, cards)], cards)
        finally:
            for card in cards:
                os.close(card)

    def counts(self, source: int) -> list[Count]:
        """Of the links from that host, in order of their targets."""
        lines = self.ask(f"count {source}").splitlines()
        return [Count(*map(int, line.split())) for line in lines]


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
