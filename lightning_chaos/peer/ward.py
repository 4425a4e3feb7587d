"""The worker as its peer sees it: a channel, and a process that may be stopped or gone."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from lightning_chaos.errors import WireError
from lightning_chaos.peer.machine import process_stopped
from lightning_chaos.protocol import local
from lightning_chaos.protocol.events import FromWorker, WorkerGone
from lightning_chaos.transport.channel import Channel

QUIT_MARGIN_S = 5.0
"""How much later than ``linger`` a peer without a worker ends at the latest, seconds."""
AT_ONCE_S = 1.0
"""How long a peer has to say its last word when it does not linger, seconds."""
_logger = logging.getLogger(__name__)


class Ward:
    """Watches the process that started this peer, and ends the peer in time when that is over.

    Args:
        channel: to the worker.
        linger_s: how long a finished run is told to latecomers, seconds.
        feed: takes what the worker says and how it ends.
        over: called when the peer must end, whatever the state machine says.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        linger_s: float,
        feed: Callable[[FromWorker | WorkerGone], None],
        over: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._linger_s = linger_s
        self._feed = feed
        self._over = over
        self._pid = os.getppid()
        self._ends_at = float("inf")
        self._stopped_since: float | None = None

    async def hear(self) -> None:
        """Take in what the worker says, until it closes its channel."""
        reason = "the worker closed its channel"
        try:
            await self._channel.listen(
                lambda data: self._feed(FromWorker(local.decode_local(data)))
            )
        except WireError as error:
            reason = f"the worker is not understood: {error}"
            _logger.warning("%s", reason)
        self.end(reason, linger=True)

    def check(self, now: float, timeout_s: float, *, needed: bool) -> None:
        """Look at its process.

        Args:
            now: seconds.
            timeout_s: for so long it may be stopped, seconds.
            needed: others wait for it if it is stopped.
        """
        if os.getppid() != self._pid:
            # Children that the worker forked may hold its end of the channel open.
            self.end("the worker's process is gone", linger=True)
        if not needed or not process_stopped(self._pid):
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = now
        elif now - self._stopped_since > timeout_s:
            # It holds others up, so it has no seat; it comes back later.
            self.end(f"its worker was stopped for more than {timeout_s:.3g} s", linger=False)

    def end(self, reason: str, *, linger: bool) -> None:
        """Let the state machine say the last word; end in time even if it does not quit."""
        loop = asyncio.get_running_loop()
        bound_s = self._linger_s + QUIT_MARGIN_S if linger else AT_ONCE_S
        first, ends_at = self._ends_at == float("inf"), loop.time() + bound_s
        if ends_at < self._ends_at:
            self._ends_at = ends_at
            loop.call_at(ends_at, self._over)
        if first:
            self._feed(WorkerGone(reason))
