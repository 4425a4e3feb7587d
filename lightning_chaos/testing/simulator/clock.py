"""Virtual time: what is due happens in order, and everything random comes from one source."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

from lightning_chaos.protocol.local import Local
from lightning_chaos.protocol.messages import Message
from lightning_chaos.testing.simulator.outcome import Violation
from lightning_chaos.testing.simulator.show import show

BUSY = 5_000
"""More things in one second than a run of a few nodes has that does not talk for ever."""


BUSY_EACH = 40
"""And so many more for each two that talk."""


class Clock:
    """The agenda of a run, and its story.

    Args:
        seed: of all chance.
        nodes: how many talk.
        story: takes a line for everything that happens; None if nobody reads it.
    """

    def __init__(self, seed: int, nodes: int, story: list[str] | None) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        """Virtual seconds since the run began."""
        self._story = story
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.done = 0
        """So many things have happened."""
        self._busy = BUSY + BUSY_EACH * nodes * nodes
        self._busy_since, self._busy_from = 0.0, 0

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        """Do this so much later."""
        heapq.heappush(self._agenda, (self.now + seconds, next(self._order), work))

    def run_until(self, end: float) -> None:
        """Let everything happen that is due by then.

        Raises:
            Violation: something that happens calls for itself again and again.
        """
        agenda = self._agenda
        while agenda and agenda[0][0] <= end:
            self.now, _, work = heapq.heappop(agenda)
            work()
            self.done += 1
            if self.now - self._busy_since > 1.0:
                self._busy_since, self._busy_from = self.now, self.done
            elif self.done - self._busy_from > self._busy:
                raise Violation(
                    f"the talk does not end: {self._busy} things happen within a second"
                )
        self.now = end

    def tell(self, *parts: object) -> None:
        """Write it into the story."""
        if self._story is not None:
            words = (show(p) if isinstance(p, Message | Local) else str(p) for p in parts)
            self._story.append(f"{self.now:7.3f} {' '.join(words)}")
