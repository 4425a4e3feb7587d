"""What a link of the lab is like: its shape, and whether it is cut."""

from __future__ import annotations

import enum
import math

import msgspec

from lightning_chaos.errors import ConfigError

MAX_RATE_MBIT = 1000.0
"""The fastest link that may be asked for; one without a rate of its own has its buffer."""
LEAST_HELD_BYTES = 64 << 10
"""So much one direction of a connection may have under way in any case."""


class Cut(enum.StrEnum):
    """How a link is cut."""

    NONE = "none"
    """It carries."""
    SILENT = "silent"
    """A black hole: nothing arrives and nobody is told."""
    RESET = "reset"
    """Connections are reset, new ones too."""
    REFUSE = "refuse"
    """New connections are refused; those that are up go on."""


class Shape(msgspec.Struct, frozen=True):
    """How fast a link carries, from one node to another.

    Raises:
        ConfigError: a figure is out of range.
    """

    rate_mbit: float | None = None
    """Mbit/s of payload of all connections together, None for as much as the relays carry."""
    delay_ms: float = 0.0
    """From the end of sending to arrival, milliseconds."""
    jitter_ms: float = 0.0
    """The delay of each piece is drawn evenly from ``delay_ms ± jitter_ms``; order is kept."""
    loss_percent: float = 0.0
    """Packets lost by chance, of 100; namespaces only."""
    queue_kib: float | None = None
    """KiB that may wait for the rate before more is dropped, None for a bandwidth-delay product
    (at least 256 KiB); namespaces only."""

    def __post_init__(self) -> None:
        rate = self.rate_mbit
        if rate is not None and not 0 < rate <= MAX_RATE_MBIT:
            raise ConfigError(
                f"rate_mbit={rate:g}: a link of the lab carries more than 0 and at most "
                f"{MAX_RATE_MBIT:g} Mbit/s; leave it out for no limit"
            )
        if not (0 <= self.jitter_ms <= self.delay_ms and math.isfinite(self.delay_ms)):
            raise ConfigError(
                f"delay_ms={self.delay_ms:g}, jitter_ms={self.jitter_ms:g}: a delay is finite, "
                "and the jitter at most as big as it"
            )
        queue = self.queue_kib
        if not 0 <= self.loss_percent <= 100 or (queue is not None and not 4 <= queue <= 1 << 20):
            raise ConfigError(
                f"loss_percent={self.loss_percent:g}, queue_kib={queue}: 0 to 100 percent may be "
                "lost, and a queue has 4 KiB to 1 GiB"
            )

    @property
    def bytes_per_s(self) -> float | None:
        """The rate in bytes per second, None for no limit."""
        return None if self.rate_mbit is None else self.rate_mbit * 1e6 / 8


FREE = Shape()
"""As fast as the relays carry."""


def bandwidth_delay_bytes(there: Shape, back: Shape) -> int:
    """What one direction of a connection may have under way: rate × round trip, ≥ 64 KiB.

    Args:
        there: the direction that carries the bytes.
        back: the direction that would carry their acknowledgement.
    """
    rate = there.bytes_per_s or MAX_RATE_MBIT * 1e6 / 8
    trip_s = (there.delay_ms + there.jitter_ms + back.delay_ms + back.jitter_ms) / 1e3
    return max(LEAST_HELD_BYTES, math.ceil(rate * trip_s))
