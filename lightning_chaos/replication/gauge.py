"""What a learner knows of the link from one donor, before and during a pull."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_chaos.errors import ConfigError
from lightning_chaos.replication.pace import Pace
from lightning_chaos.transport.rate import PassiveRate, RateEstimate
from lightning_chaos.transport.train import Arrival, rate_of_train

ASSUMED_BYTES_PER_S = 12.5e6
"""Where nothing is known of any link; that they are alike is all that counts then."""


class Gauge:
    """The rate of one link, from the best source there is.

    What the transfer itself shows counts once it is more than a lower bound; before that the pace
    of the answers; before the first one what is remembered of an earlier transfer; before that the
    train.

    Args:
        remembered: rate of an earlier transfer, bytes/s; None if there was none.

    Raises:
        ConfigError: that is not positive and finite.
    """

    def __init__(self, remembered: float | None) -> None:
        if remembered is not None and not (math.isfinite(remembered) and remembered > 0):
            raise ConfigError(
                f"{remembered} bytes/s is remembered of a link, which is not a rate; "
                "it must be positive and finite"
            )
        self._remembered = remembered
        self.train: RateEstimate | None = None
        """What the train said, if one came and said something."""
        self.rtt_s = 0.0
        """Round trip, seconds; 0 before there is a connection."""
        self.live = PassiveRate()
        """Fed by the connection."""
        self.pace = Pace()
        """Fed with requests and answers: rough, but there with the first answer."""

    def connected(self, rtt_s: float) -> None:
        """There is a connection.

        Args:
            rtt_s: how long its handshake took, seconds.
        """
        self.rtt_s = rtt_s
        self.live = PassiveRate(rtt_s)
        self.pace = Pace(rtt_s)

    def heard_train(self, arrivals: Sequence[Arrival]) -> None:
        """The donor's train came."""
        self.train = rate_of_train(arrivals, self.rtt_s)

    @property
    def certain(self) -> bool:
        """The transfer itself has shown the rate."""
        live = self.live.estimate
        return live is not None and not live.lower_bound

    @property
    def bytes_per_s(self) -> float | None:
        """The best that is known, None if nothing is."""
        live = self.live.estimate
        if live is not None and not live.lower_bound:
            return live.bytes_per_s
        first = self._remembered or (self.train.bytes_per_s if self.train else None)
        return self.pace.bytes_per_s or first

    @property
    def present_bytes_per_s(self) -> float | None:
        """What the donor answers with at present, or the best that is known before it has."""
        return self.pace.bytes_per_s or self.bytes_per_s

    def due_s(self, n: int, size: int, now_s: float) -> float:
        """When its n-th answer from now is expected: see :meth:`Pace.due_s`."""
        return self.pace.due_s(n, size, now_s, self.bytes_per_s or ASSUMED_BYTES_PER_S)
