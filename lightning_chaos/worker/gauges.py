"""What a worker measures by the way: its links and its machine, told to the peer and the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from lightning_chaos.monitor.host import HostMeter
from lightning_chaos.protocol.local import Local, Measured
from lightning_chaos.protocol.readings import Reading
from lightning_chaos.protocol.values import Uid
from lightning_chaos.worker.chronicle import Chronicle

PACE_S = 1.0
LOG_EVERY = 60
"""So many measurements are told to the peer for each that the run log keeps."""


class Links(Protocol):
    """The mesh."""

    def readings(self) -> dict[Uid, Reading]:
        """Of what comes from each."""
        ...

    def losses(self) -> dict[Uid, float]:
        """Of what goes to each, the share lost."""
        ...

    def ask_train(self, *, busy: bool) -> None:
        """Ask for a train over a link that lies idle, if it is time."""
        ...


class Reducer(Protocol):
    """The operations."""

    longest_bytes: int

    @property
    def busy(self) -> bool:
        """One is under way."""
        ...


async def tell_gauges(
    links: Links, reducer: Reducer, tell_peer: Callable[[Local], None], chronicle: Chronicle
) -> None:
    """Measure for as long as the station lives.

    Args:
        links: whose rates are told.
        reducer: whose longest vector is.
        tell_peer: says something to this node's peer.
        chronicle: keeps the first measurement and then one a minute.
    """
    meter, turn = HostMeter(), 0
    while True:
        await asyncio.sleep(PACE_S)
        host, rates = meter.look(), links.readings()
        tell_peer(Measured(rates, reducer.longest_bytes, host, links.losses()))
        if turn % LOG_EVERY == 0:
            chronicle.gauges(host, rates)
        links.ask_train(busy=reducer.busy)
        turn += 1
