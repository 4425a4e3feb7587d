"""What the lab says to its relay process and hears from it: JSON, one message a line."""

from __future__ import annotations

import msgspec

from lightning_chaos.testing.lab.conditions import Cut, Shape


class Place(msgspec.Struct, frozen=True, tag="place"):
    """A node's door is there."""

    node: str
    host: str
    port: int


class SetShape(msgspec.Struct, frozen=True, tag="shape"):
    """The roads from ``source`` to ``target`` ('*': all) are like this."""

    source: str
    target: str
    shape: Shape


class SetCut(msgspec.Struct, frozen=True, tag="cut"):
    """The roads from ``source`` to ``target`` ('*': all) are cut like this."""

    source: str
    target: str
    cut: Cut


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """How do you stand?"""


Order = Place | SetShape | SetCut | Ask


class Standing(msgspec.Struct, frozen=True):
    """The answer to every order."""

    port: int
    """Where nodes reach the relay, on 127.0.0.1."""
    connections: int
    """Carried or called for at this moment."""
    carried: list[tuple[str, str, int]]
    """From which node to which, and the bytes that arrived."""


order_decoder = msgspec.json.Decoder(Order)
standing_decoder = msgspec.json.Decoder(Standing)


def encode_line(message: Order | Standing) -> bytes:
    """The message as one line."""
    return msgspec.json.encode(message) + b"\n"
