"""Works plans out beside the event loop: a peer must hear others meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine

from lightning_chaos.errors import PlanError
from lightning_chaos.planning.reconsider import reconsider
from lightning_chaos.protocol.events import Replan, Replanned

_SHARE = 0.05
"""Of a processor, at most: figures may change all the time, and planning for 24 takes half a
second."""
_logger = logging.getLogger(__name__)


class Planner:
    """One plan at a time, in a thread of its own.

    Args:
        feed: takes the answer.
        spawn: starts a task whose failure ends the process.
    """

    def __init__(
        self,
        feed: Callable[[Replanned], None],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
    ) -> None:
        self._feed = feed
        self._spawn = spawn
        self._busy = False

    def start(self, ask: Replan) -> None:
        """Answer this later; dropped while it works or rests, for the lead asks again."""
        if not self._busy:
            self._busy = True
            self._spawn(self._answer(ask))

    async def _answer(self, ask: Replan) -> None:
        begun = time.monotonic()
        try:
            found = await asyncio.to_thread(reconsider, ask.present, ask.graph, ask.total_bytes)
            self._feed(Replanned(ask.graph, *found))
        except PlanError as error:
            _logger.warning("no plan for the links as measured: %s", error)
        await asyncio.sleep((time.monotonic() - begun) / _SHARE)
        self._busy = False
