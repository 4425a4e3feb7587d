"""The cluster as measured: who is in it, which links they have, what their network cards carry."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from statistics import median

import msgspec

from lightning_chaos.errors import ConfigError

BYTES_PER_S_PER_MBIT = 125_000.0
"""Bytes per second that one Mbit/s is."""
LEAST_MBIT, MOST_MBIT = 1e-6, 1e12
"""What may be said of a link: a bit per second at least, and at most what a float can plan with."""


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of the way from one member to another; the way back is a link of its own.

    It is checked where its ends are known, in :class:`Graph`.
    """

    rate_mbit: float
    """What the link carries when it is used alone, Mbit/s."""
    latency_ms: float
    """Time of a small message, one way, milliseconds."""
    loss: float = 0.0
    """Share of packets lost, 0 <= loss < 1; the rate is what is left with it."""
    age_s: float = 0.0
    """Time since these figures were measured, seconds."""
    confidence: float = 1.0
    """Trust in the rate: 1 for a long transfer, less for a guess; at 0 it is a lower bound."""

    def problem(self) -> str | None:
        """What cannot be true of this link, or None."""
        if not LEAST_MBIT <= self.rate_mbit <= MOST_MBIT:
            return (
                f"{self.rate_mbit} Mbit/s is not a rate; "
                f"it must be in {LEAST_MBIT:g}..{MOST_MBIT:g}"
            )
        for what, value in (("latency", self.latency_ms), ("age", self.age_s)):
            if not (math.isfinite(value) and value >= 0):
                return f"a {what} of {value} cannot be; it must be finite and not negative"
        if not 0 <= self.loss < 1:
            return f"a loss of {self.loss} cannot be; it must be in 0 <= loss < 1"
        if not 0 <= self.confidence <= 1:
            return f"a confidence of {self.confidence} cannot be; it must be in 0..1"
        return None


class Cap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a member's network card carries over all of its links together."""

    up_mbit: float = math.inf
    """Sending, Mbit/s; infinite where it never is the narrowest place."""
    down_mbit: float = math.inf
    """Receiving, Mbit/s."""

    def problem(self) -> str | None:
        """What cannot be true of this card, or None."""
        for what, value in (("sends", self.up_mbit), ("receives", self.down_mbit)):
            if not value >= LEAST_MBIT:
                return (
                    f"a card that {what} {value} Mbit/s is of no use; "
                    f"it must be {LEAST_MBIT:g} or more"
                )
        return None


class Graph(msgspec.Struct, frozen=True):
    """Members, the links between them that are up, and the caps of their network cards.

    Raises:
        ConfigError: two members of one name, an empty name, a link or cap of nobody, a link from
            a member to itself, or a figure that cannot be (which, and of whom).
    """

    members: tuple[str, ...]
    links: Mapping[tuple[str, str], Link]
    """(from, to): a pair that is not here is not linked that way."""
    caps: Mapping[str, Cap] = {}
    """A member that is not here has none."""

    def __post_init__(self) -> None:
        known = Counter(self.members)
        if "" in known:
            raise ConfigError("a member of the cluster has an empty name; give it one")
        for name, times in known.items():
            if times > 1:
                raise ConfigError(f"two members have the name {name}; names must be different")
        for (sender, receiver), link in self.links.items():
            self._check_ends(known, sender, receiver)
            if problem := link.problem():
                raise ConfigError(f"link {sender} -> {receiver}: {problem}")
        for name, cap in self.caps.items():
            if name not in known:
                raise ConfigError(f"a cap is given for {name}, which is not a member")
            if problem := cap.problem():
                raise ConfigError(f"caps of {name}: {problem}")

    @staticmethod
    def _check_ends(known: Mapping[str, int], sender: str, receiver: str) -> None:
        for name in (sender, receiver):
            if name not in known:
                raise ConfigError(
                    f"link {sender} -> {receiver}: {name} is not a member of the cluster"
                )
        if sender == receiver:
            raise ConfigError(f"link {sender} -> {receiver}: a member needs no link to itself")

    def cap(self, name: str) -> Cap:
        """The caps of a member's network card."""
        return self.caps.get(name, UNLIMITED)


def counted(graph: Graph) -> Graph:
    """The same cluster with the rates that a planner should count with, and nothing else.

    A rate with confidence c counts as ``typical * (rate / typical) ** c``, where typical is the
    median of those that are known: the less is known, the more like the others a link is taken to
    be.  A lower bound makes no link look slower than that.

    Args:
        graph: the cluster as measured.
    """
    known = [link.rate_mbit for link in graph.links.values() if link.confidence > 0]
    typical = median(known or [LEAST_MBIT])

    def rate_mbit(link: Link) -> float:
        if link.confidence == 0:
            return max(link.rate_mbit, typical)
        return typical * float((link.rate_mbit / typical) ** link.confidence)

    links = {edge: Link(rate_mbit(link), link.latency_ms) for edge, link in graph.links.items()}
    return Graph(graph.members, links, graph.caps)


UNLIMITED = Cap()
