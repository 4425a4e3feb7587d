"""``python -m lightning_chaos.peer DOOR CHANNEL HANDOVER``: one peer on inherited sockets.

Started by :func:`lightning_chaos.peer.client.start_peer`, never by hand: the arguments are file
descriptors.  The first message on the channel is a :class:`PeerConfig`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable

from lightning_chaos.peer.config import decode_config
from lightning_chaos.peer.driver import Driver
from lightning_chaos.transport.channel import Channel

_CONFIG_TIMEOUT_S = 10.0
_EXIT_TIMEOUT_S = 2


class _StoryFormatter(logging.Formatter):
    """Begins every line with who, epoch and round."""

    def __init__(self, story: Callable[[], str]) -> None:
        super().__init__("%(message)s")
        self._story = story

    def format(self, record: logging.LogRecord) -> str:
        return f"[{self._story()}] {super().format(record)}"


async def _run(door: socket.socket, control: socket.socket, handover: socket.socket) -> None:
    worker = await Channel.over(control)
    async with asyncio.timeout(_CONFIG_TIMEOUT_S):
        data = await worker.receive()
    if data is None:
        return
    config = decode_config(data)
    driver = Driver(config, door, worker, handover)
    handler = logging.StreamHandler()
    handler.setFormatter(_StoryFormatter(driver.story))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    await driver.run()
    # A name look-up that is still going on in a thread must not keep the process.
    signal.alarm(_EXIT_TIMEOUT_S)


def main(arguments: list[str]) -> None:
    """Run a peer until its part in the run is over."""
    # Ctrl-C is the worker's to turn into a polite leave.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # what was imported stays: looking through it costs 10 ms each time
    door, control, handover = (socket.socket(fileno=int(text)) for text in arguments)
    with door, control, handover:
        for sock in (door, control, handover):
            sock.setblocking(False)
        asyncio.run(_run(door, control, handover))


if __name__ == "__main__":
    main(sys.argv[1:])
