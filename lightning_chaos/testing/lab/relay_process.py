"""``python -m lightning_chaos.testing.lab.relay_process CHANNEL SEED``: one relay.

Started by :class:`lightning_chaos.testing.lab.relays.Relays`, never by hand: CHANNEL is an
inherited socket.  The process ends when the other end of it is closed or gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

from lightning_chaos.testing.lab.carriage import bound_buffers
from lightning_chaos.testing.lab.orders import (
    Ask,
    Order,
    Place,
    SetCut,
    SetShape,
    Standing,
    encode_line,
    order_decoder,
)
from lightning_chaos.testing.lab.relay import Relay
from lightning_chaos.testing.lab.timers import exact_loop
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.door import open_door


async def _run(channel: socket.socket, seed: int) -> None:
    relay = Relay(seed)
    with open_door("127.0.0.1", 0) as door:
        bound_buffers(door)
        serving = asyncio.ensure_future(relay.serve(door))
        obeying = asyncio.ensure_future(_obey(relay, channel, door.getsockname()[1]))
        try:
            done, _ = await asyncio.wait({serving, obeying}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            serving.cancel()
            obeying.cancel()
            await asyncio.gather(serving, obeying, return_exceptions=True)


async def _obey(relay: Relay, channel: socket.socket, port: int) -> None:
    reader, writer = await asyncio.open_connection(sock=channel)
    while True:
        carried = [(*pair, count) for pair, count in relay.carried_bytes().items()]
        writer.write(encode_line(Standing(port, relay.connections, carried)))
        await writer.drain()
        line = await reader.readline()
        if not line:
            return
        _do(relay, order_decoder.decode(line))


def _do(relay: Relay, order: Order) -> None:
    match order:
        case Place(node, host, port):
            relay.place(node, Address(host, port))
        case SetShape(source, target, shape):
            relay.shape(source, target, shape)
        case SetCut(source, target, cut):
            relay.cut(source, target, cut)
        case Ask():
            pass


def main(arguments: list[str]) -> None:
    """Relay until the lab goes."""
    logging.basicConfig(format="[relay] %(message)s")
    channel = socket.socket(fileno=int(arguments[0]))
    with channel:
        channel.setblocking(False)
        with asyncio.Runner(loop_factory=exact_loop) as runner:
            runner.run(_run(channel, int(arguments[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
