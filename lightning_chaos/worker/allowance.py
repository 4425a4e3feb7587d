"""How long the others should wait for this worker: it knows best what it usually takes.

What a round takes is compared with the longest of this worker's own rounds.  Nobody can tell how
long what has no past may take: the first round, with its compilation, and whatever training does
between two rounds once it has lasted a moment, a validation or a checkpoint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from lightning_chaos.protocol import local

LEAST_S = 60.0
"""Allowance of a round that usually takes little, seconds."""
TIMES = 10
"""How many times as long as ever before a round may take; or, as a round may, what is no round."""
_MOMENT_S = 0.5
_CHECK_S = 0.25


class Allowance:
    """Told when training works and when it waits for others, which does not count.

    Times are seconds, monotonic.

    Args:
        given_s: allowance of a round, as the user has set it; None to derive it.
    """

    def __init__(self, given_s: float | None) -> None:
        self._given_s = given_s
        self._rounds = 0
        self._longest = {True: 0.0, False: 0.0}
        """Of work within rounds, the first one left out, and of all other work."""
        self._since: float | None = None
        self._in_round = False

    def works(self, now: float, *, in_round: bool) -> None:
        """Training goes on by itself.

        Args:
            now: seconds.
            in_round: a round begins; else one ends, or none has begun.
        """
        self._since, self._in_round = now, in_round
        self._rounds += in_round

    def waits(self, now: float, *, in_round: bool) -> None:
        """Training waits for others.

        Args:
            now: seconds.
            in_round: for an operation; else for its turn to begin a round.
        """
        if self._since is not None and self._rounds > 1:
            self._longest[in_round] = max(self._longest[in_round], now - self._since)
        self._since = None

    def seconds(self, now: float) -> float:
        """How long others should wait from now on before they count this worker as hung."""
        round_s = self._given_s or max(LEAST_S, TIMES * self._longest[True])
        other_s = TIMES * max(round_s, self._longest[False])
        if self._rounds <= 1:
            return other_s
        between = self._since is not None and not self._in_round
        return other_s if between and now - (self._since or 0.0) > _MOMENT_S else round_s


async def tell_allowance(allowance: Allowance, tell_peer: Callable[[local.Local], None]) -> None:
    """Keep the peer informed for as long as the station lives: others need it when this one hangs.

    Args:
        allowance: of this worker.
        tell_peer: says something to this node's peer.
    """
    told = 0.0
    while True:
        seconds = allowance.seconds(time.monotonic())
        if seconds != told:
            told = seconds
            tell_peer(local.Allowance(seconds))
        await asyncio.sleep(_CHECK_S)
