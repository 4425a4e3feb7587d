"""Whether the lab's links are what they were told to be; to be printed before every benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from lightning_chaos.errors import ConfigError, LabError
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.rules import Pair
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.testing.lab.wan.switch import queue_bytes
from lightning_chaos.testing.lab.wan.traffic import goodputs_mbit, round_trips_s

PAYLOAD_SHARE = 1448 / 1514
"""Of a full Ethernet frame (14 bytes, MTU 1500) TCP's payload with time stamps is 95.64 %."""
TOLERANCE = 0.05
_TIMER_MS = 1.0
_WARM_UP_S = 2.0
_WARM_UP_TRIPS = 20
_QUEUE_SHARE = 0.85


@dataclass(frozen=True, slots=True)
class Reading:
    """One direction of a link, as it was told to be and as it was measured."""

    source: str
    target: str
    ceiling_mbit: float | None
    """What TCP's payload can have of the rate, Mbit/s; None where there is no rate."""
    goodput_mbit: float
    told_ms: float
    """Round trip: the delays of both directions."""
    trip_ms: float
    jitter_ms: float

    @property
    def rate_error(self) -> float:
        """Share of the ceiling that the goodput is off."""
        return self.goodput_mbit / self.ceiling_mbit - 1 if self.ceiling_mbit else 0.0

    @property
    def trip_error_ms(self) -> float:
        """By how much the round trip is longer than told."""
        return self.trip_ms - self.told_ms

    @property
    def ok(self) -> bool:
        """Rate and round trip are within 5 % (a round trip: or a millisecond, besides jitter)."""
        slack_ms = max(TOLERANCE * self.told_ms, _TIMER_MS) + self.jitter_ms
        return abs(self.rate_error) <= TOLERANCE and abs(self.trip_error_ms) <= slack_ms


@dataclass(frozen=True, slots=True)
class Calibration:
    """All readings, taken at once."""

    readings: tuple[Reading, ...]

    @property
    def ok(self) -> bool:
        """Every link is as it was told to be."""
        return all(reading.ok for reading in self.readings)

    def lines(self) -> list[str]:
        """A table in Markdown, with the verdict below it."""
        lines = [
            "| link | payload of its rate | goodput | off | round trip told | measured | |",
            "|---|---|---|---|---|---|---|",
        ]
        for r in self.readings:
            rate = f"{r.ceiling_mbit:.1f} Mbit/s" if r.ceiling_mbit else "none"
            off = f"{100 * r.rate_error:+.1f} %" if r.ceiling_mbit else ""
            lines.append(
                f"| {r.source} to {r.target} | {rate} | {r.goodput_mbit:.1f} Mbit/s | {off} "
                f"| {r.told_ms:.2f} ms | {r.trip_ms:.2f} ms | {'ok' if r.ok else 'off'} |"
            )
        total = sum(r.goodput_mbit for r in self.readings)
        off_links = sum(not r.ok for r in self.readings)
        worst = max(self.readings, key=lambda r: abs(r.rate_error)).rate_error
        verdict = "all links are" if not off_links else f"{off_links} links are not"
        lines += [
            "",
            f"{len(self.readings)} connections at once, {total:.0f} Mbit/s in sum, the worst rate "
            f"{100 * worst:+.1f} %: {verdict} as told (5 %).",
        ]
        return lines

    def require(self) -> None:
        """Refuse to measure anything with links that are off.

        Raises:
            LabError: some are; shows the table.
        """
        if not self.ok:
            raise LabError(
                "the lab's links are not what they were told to be, so nothing can be measured "
                "over them; is the machine busy?\n" + "\n".join(self.lines())
            )


def mesh(nodes: Sequence[str]) -> list[Pair]:
    """From every node to every other."""
    return list(permutations(nodes, 2))


def into(target: str, nodes: Sequence[str]) -> list[Pair]:
    """From all other nodes into one."""
    return [(node, target) for node in nodes if node != target]


def calibrate(network: Namespaces, pairs: Sequence[Pair], *, seconds: float = 4.0) -> Calibration:
    """Measure links and compare: first the idle round trips, then goodput on all at once.

    One TCP connection for each pair; what they deliver counts only after slow start and its losses
    are over, 2 seconds and 40 round trips.

    Args:
        network: its links; no loss, and no limits of network cards, which they would have to
            share.
        pairs: from which node to which; see :func:`mesh` and :func:`into`.
        seconds: how long goodput is measured.

    Raises:
        ConfigError: a link loses packets, so that TCP cannot fill it, or a card has a limit.
        TimeoutError: a link carries nothing.
    """
    shapes = {pair: network.shape_of(*pair) for pair in pairs}
    if any(shape.loss_percent for shape in shapes.values()) or network.has_limited_cards:
        raise ConfigError("links with loss, or behind cards with a limit, cannot be calibrated")
    there_and_back = {(a, b): (shapes[a, b], network.shape_of(b, a)) for a, b in pairs}
    longest_s = max(one.delay_ms + two.delay_ms for one, two in there_and_back.values()) / 1e3
    windows = {pair: _window(shape) for pair, shape in shapes.items()}
    trips = round_trips_s(network, pairs)
    goodputs = goodputs_mbit(
        network, windows, warm_up_s=_WARM_UP_S + _WARM_UP_TRIPS * longest_s, seconds=seconds
    )
    return Calibration(
        tuple(_reading(pair, *there_and_back[pair], goodputs[pair], trips[pair]) for pair in pairs)
    )


def _window(shape: Shape) -> int:
    """Bytes under way that keep a link busy, and that its queue could hold all at once.

    They may have to, before they are spread evenly over the way.  A queue shorter than the way
    cannot hold them; then some of it is filled, beside what is under way.
    """
    queue = queue_bytes(shape)
    under_way = (shape.bytes_per_s or 0.0) * (shape.delay_ms + shape.jitter_ms) / 1e3
    return int(max(_QUEUE_SHARE * queue, under_way + 0.3 * queue))


def _reading(pair: Pair, there: Shape, back: Shape, goodput: float, trip_s: float) -> Reading:
    return Reading(
        *pair,
        ceiling_mbit=there.rate_mbit and there.rate_mbit * PAYLOAD_SHARE,
        goodput_mbit=goodput,
        told_ms=there.delay_ms + back.delay_ms,
        trip_ms=trip_s * 1e3,
        jitter_ms=there.jitter_ms + back.jitter_ms,
    )
