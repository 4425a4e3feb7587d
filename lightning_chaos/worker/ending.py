"""How an incarnation parts from the others: as it planned to, or because training is over."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from lightning_chaos.protocol import local
from lightning_chaos.worker.station import Station

log = logging.getLogger(__name__)
END_BOUND_S = 5.0
"""Nobody waits longer for the others' end."""


async def part_from_others(station: Station) -> None:
    """After a planned leave: wait until those who stay have closed their links to this node."""
    mesh = station.mesh
    mesh.let_go()  # they leave too, and would wait for this node's end
    try:
        async with asyncio.timeout(END_BOUND_S):
            await station.until(lambda: True if not mesh.linked else None)
    except TimeoutError:
        log.warning("left after %.1f s with links still open", END_BOUND_S)


async def finish(station: Station, round_: int, final: dict[str, Any]) -> None:
    """Training is over: wait until it is over everywhere, or too long.

    Args:
        station: of the incarnation that has finished.
        round_: the last one.
        final: what the run log says of the end.
    """
    station.chronicle.final(final)
    station.tell_peer(local.Done(round_))
    try:
        async with asyncio.timeout(END_BOUND_S):
            await station.until(lambda: True if station.all_done or station.apart else None)
    except TimeoutError:
        log.warning("not everybody has finished after %.1f s; going on", END_BOUND_S)
    station.all_done = True
