"""Works plans out beside the event loop: a peer must hear others meanwhile."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable

from lightning_chaos.errors import PlanError
from lightning_chaos.planning.reconsider import reconsider
from lightning_chaos.protocol.events import Replan, Replanned

_SHARE = 0.05
"""Of a processor, at most: figures may change all the time, and planning for 24 takes half a
second."""
_TURN_S = 1e-4
"""So soon the event loop gets its turn while a plan is made.  Python's own 5 ms is as long as all
members may need to settle a lost link."""
_logger = logging.getLogger(__name__)


class Planner:
    """One plan at a time, in a thread of its own.

    Args:
        feed: takes the answers.
    """

    def __init__(self, feed: Callable[[Replanned], None]) -> None:
        self._feed = feed
        self._ask: Replan | None = None
        self._asked = asyncio.Event()
        self._told = ""
        """What went wrong last: people are told of it once."""

    def ask(self, ask: Replan) -> None:
        """Answer this as soon as there is time; what was asked before and not begun is void."""
        self._ask = ask
        self._asked.set()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            if self._ask is not None:
                begun = time.monotonic()
                await self._answer(self._ask)
                await asyncio.sleep((time.monotonic() - begun) / _SHARE)

    async def _answer(self, ask: Replan) -> None:
        usual_s = sys.getswitchinterval()
        sys.setswitchinterval(_TURN_S)
        try:
            found = await asyncio.to_thread(reconsider, ask.present, ask.graph, ask.total_bytes)
        except PlanError as error:
            self._complain(str(error))
        except Exception as error:
            # The plan in force is a good one; a better one is not worth a peer's life.
            self._complain(f"the planner failed: {error!r}", error)
        else:
            self._told = ""
            self._feed(Replanned(ask.graph, *found))
        finally:
            sys.setswitchinterval(usual_s)

    def _complain(self, problem: str, mistake: Exception | None = None) -> None:
        level = logging.DEBUG if problem == self._told else logging.WARNING
        self._told = problem
        _logger.log(level, "no plan for the links as measured: %s", problem, exc_info=mistake)
