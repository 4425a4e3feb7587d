"""How well a link's rate is known: from a short train, and from a transfer as it goes.

    python benchmarks/rates.py [--repeat 20] [--write benchmarks/results/rates.md]

Each time a new connection between two nodes carries a train, and with a round trip of 20 ms also
shards until their rate is no lower bound any more; through relays and between namespaces (where
root may have them), at rates of 20 to 1000 Mbit/s and round trips of 1 to 50 ms.  What is told is
the estimate over what the lab was told to carry; the namespaces are calibrated first.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from common import machine, parser, publish
from doors import dialler_of, open_to, payload_of

from lightning_chaos.errors import ConfigError, WireError
from lightning_chaos.replication.gauge import Gauge
from lightning_chaos.replication.inflow import Arrived, TrainSeen
from lightning_chaos.replication.shard_channel import ShardChannel
from lightning_chaos.replication.wire import Shard, Train, Want
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.lab.wan.calibration import calibrate
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.transport.dial import dial
from lightning_chaos.transport.door import Kind
from lightning_chaos.transport.train import TRAIN_BYTES, TRAIN_WRITE_BYTES

RATES_MBIT = (20, 50, 100, 200, 500, 1000)
TRIPS_MS = (1, 20, 50)
TRANSFER_TRIP_MS = 20
SHARD_BYTES = 512 << 10
PIECE_BYTES = 64 << 10
PATIENCE_S = 20.0


@dataclass(slots=True)
class Ratios:
    """Estimates over the truth, of one link."""

    train: list[float] = field(default_factory=list)
    silent: int = 0
    """Trains that said nothing."""
    passive: list[float] = field(default_factory=list)


async def send(sock: socket.socket) -> None:
    """A donor that sends a train when it is asked, and shards once it is asked for some."""
    channel = await ShardChannel.over(sock, server_side=True)
    try:
        await channel.receive(PATIENCE_S)
        channel.send(Train(TRAIN_BYTES))
        train = memoryview(os.urandom(TRAIN_BYTES))
        for start in range(0, TRAIN_BYTES, TRAIN_WRITE_BYTES):
            channel.send_raw(train[start : start + TRAIN_WRITE_BYTES], apart=True)
        if await channel.receive(PATIENCE_S) is None:
            return
        piece = memoryview(os.urandom(PIECE_BYTES))
        while not channel.closing:
            channel.send(Shard(0, SHARD_BYTES))
            for _ in range(SHARD_BYTES // PIECE_BYTES):
                channel.send_raw(piece)
                await channel.drain(PATIENCE_S)
    except (WireError, OSError):
        pass  # the learner has seen enough
    finally:
        channel.abort()
        await channel.wait_closed()


async def once(
    network: Relays | Namespaces, truth: float, ratios: Ratios, *, transfer: bool
) -> None:
    """One connection from a learner to a donor: a train, and what follows it if that is wanted."""
    loop, gauge = asyncio.get_running_loop(), Gauge(None)
    async with open_to(network, "donor", send) as address:
        begun = loop.time()
        sock = await dial(dialler_of(network, "new"), address, Kind.SHARDS, PATIENCE_S)
        gauge.connected(loop.time() - begun)
        channel = await ShardChannel.over(sock)
        channel.send(Want(0))  # stands for the question that a donor answers with a train
        seen = await channel.receive(PATIENCE_S)
        assert isinstance(seen, TrainSeen)
        gauge.heard_train(seen.arrivals)
        if gauge.train is None:
            ratios.silent += 1
        else:
            ratios.train.append(gauge.train.bytes_per_s / truth)
        if transfer:
            await pull(channel, gauge)
            assert gauge.bytes_per_s is not None
            ratios.passive.append(gauge.bytes_per_s / truth)
        channel.abort()
        await channel.wait_closed()


async def pull(channel: ShardChannel, gauge: Gauge) -> None:
    """Take shards until the link's rate is certain."""
    channel.expect_shards(SHARD_BYTES)
    channel.feed(gauge.live)
    channel.send(Want(0))
    gauge.live.begin()
    while not gauge.certain:
        assert isinstance(await channel.receive(PATIENCE_S), Arrived)


def measure(
    network: Relays | Namespaces, rates: Sequence[float], trips_ms: Sequence[int], repeat: int
) -> list[str]:
    """Rows of one network."""
    rows = []
    name = "relay" if isinstance(network, Relays) else "namespaces"
    for rate, trip_ms in itertools.product(rates, trips_ms):
        network.shape(Shape(rate_mbit=rate, delay_ms=trip_ms / 2), "donor", "new")
        transfer = trip_ms == TRANSFER_TRIP_MS
        if isinstance(network, Namespaces) and transfer and repeat > 1:
            calibrate(network, [("donor", "new")]).require()
        ratios = Ratios()
        for _ in range(repeat):
            asyncio.run(once(network, payload_of(network, rate), ratios, transfer=transfer))
        rows.append(
            f"| {name} | {rate:g} | {trip_ms} | {_told(ratios.train)} | {ratios.silent} | "
            f"{_told(ratios.passive)} |"
        )
    return rows


def _told(ratios: Sequence[float]) -> str:
    if not ratios:
        return "–"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Measure and print; see the module."""
    arguments_of = parser(__doc__.splitlines()[0])
    arguments_of.add_argument("--repeat", type=int, default=20, help="connections per link")
    arguments = arguments_of.parse_args()
    rates = (100,) if arguments.smoke else RATES_MBIT
    trips_ms = (TRANSFER_TRIP_MS,) if arguments.smoke else TRIPS_MS
    repeat = 1 if arguments.smoke else arguments.repeat
    lines = [
        machine(),
        f"Estimate over truth: median (least to most); n = {repeat}.",
        "",
        "| lab | Mbit/s | round trip, ms | train | says nothing | transfer |",
        "|---|---|---|---|---|---|",
    ]
    with Relays() as relays:
        lines += measure(relays, rates, trips_ms, repeat)
    try:
        with Namespaces(2) as namespaces:
            lines += measure(namespaces, rates, trips_ms, repeat)
    except ConfigError as error:
        lines += ["", f"Not between namespaces: {error}"]
    publish("\n".join(lines) + "\n", arguments.write)


if __name__ == "__main__":
    main()
