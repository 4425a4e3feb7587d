"""When a donor's next answers are due, from how long it took over the last ones.

Wants are answered in order, so a donor is a queue of one server.  The time of an answer begins
when it could have begun to come: a round trip after it was asked for, or when the one before it
was there (Lindley's recursion), or when it did.  Waiting for requests is left out, so a donor that
is asked for too little shows its full rate all the same, with its first answer; TCP's slow start
is not left out: it is what the next answers will suffer too.
"""

from __future__ import annotations

import math
from collections import deque

_MEMORY_S = 0.1
"""Answers count less and less; of those that are older by this and a round trip a third is left."""


class Pace:
    """One donor's answers; times are of any one clock.

    Args:
        rtt_s: round trip to the donor, seconds.
    """

    def __init__(self, rtt_s: float = 0.0) -> None:
        self._rtt_s = rtt_s
        self._asked: deque[float] = deque()
        """When those under way were asked for."""
        self._last_s = -math.inf
        """When the last answer was there."""
        self._bytes = 0.0
        self._seconds = 0.0

    @property
    def bytes_per_s(self) -> float | None:
        """What it answers with when it has been asked, None before its first answer."""
        return self._bytes / self._seconds if self._seconds > 0 else None

    def asked(self, now_s: float) -> None:
        """One more shard was asked for."""
        self._asked.append(now_s)

    def answered(self, size: int, began_s: float, now_s: float) -> None:
        """The next answer is there.

        Args:
            size: bytes.
            began_s: when its first bytes came.
            now_s: the present.
        """
        free_s = max(self._asked.popleft() + self._rtt_s, self._last_s)
        took_s = now_s - min(began_s, free_s)
        fade = math.exp(-took_s / (_MEMORY_S + self._rtt_s))
        self._bytes = fade * self._bytes + size
        self._seconds = fade * self._seconds + took_s
        self._last_s = now_s

    def due_s(self, n: int, size: int, now_s: float, believed: float) -> float:
        """When the n-th answer from now is expected.

        A donor that is silent for longer than an answer takes is expected to be so for as long
        again; if it has never answered, with every answer, for then nothing speaks for the rate
        believed.

        Args:
            n: from 1; more than are under way: were they asked for now.
            size: bytes of each.
            now_s: the present.
            believed: its rate as long as it has not answered, bytes/s.
        """
        period_s = size / (self.bytes_per_s or believed)
        if not self._asked:
            return now_s + self._rtt_s + n * period_s
        begun_s = max(self._asked[0] + self._rtt_s, self._last_s)
        silent_s, next_s = now_s - begun_s, begun_s + period_s
        if silent_s > period_s:
            next_s = now_s + silent_s
            period_s = period_s if self._seconds else silent_s
        due_s = next_s + (n - 1) * period_s
        if n > len(self._asked):
            due_s = max(due_s, now_s + self._rtt_s + period_s)
        return due_s
