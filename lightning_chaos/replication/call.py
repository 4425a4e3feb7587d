"""A learner's side of a connection to who has the state: the first words."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

from lightning_chaos.errors import StateDeclined, WireError
from lightning_chaos.replication.gauge import Gauge
from lightning_chaos.replication.image import Manifest
from lightning_chaos.replication.inflow import Heard, TrainSeen
from lightning_chaos.replication.shard_channel import ShardChannel
from lightning_chaos.replication.wire import Ask, ManifestReply, NotYet, Refuse
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import Dialler, dial
from lightning_chaos.transport.door import Kind


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and how."""

    ask: Ask
    dialler: Dialler
    tls: ssl.SSLContext | None
    """Context for handshakes, None for plain bytes."""
    stall_s: float
    """Longest silence, seconds."""
    max_bytes: int
    """Largest state taken."""

    async def connect(self, address: Address, gauge: Gauge) -> ShardChannel:
        """A channel to that door; the gauge is told of the round trip.

        Raises:
            OSError: nobody there, or none that takes the call; TimeoutError among them.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with asyncio.timeout(self.stall_s):
            sock = await dial(self.dialler, address, Kind.SHARDS, self.stall_s)
            gauge.connected(loop.time() - begun)
            return await ShardChannel.over(sock, tls=self.tls, server_hostname=address.host)

    async def manifest(self, channel: ShardChannel, gauge: Gauge) -> Manifest:
        """Ask, and wait for what there is; the gauge is told of the train.

        Raises:
            WireError: nonsense came, or a state too large; or see :meth:`hear`.
        """
        channel.send(self.ask)
        while isinstance(heard := await self.hear(channel), NotYet | TrainSeen):
            if isinstance(heard, TrainSeen):
                gauge.heard_train(heard.arrivals)
        if not isinstance(heard, ManifestReply):
            raise WireError(f"sent {type(heard).__name__} instead of a manifest")
        heard.manifest.check(self.max_bytes)
        return heard.manifest

    async def hear(self, channel: ShardChannel) -> Heard:
        """What comes next.

        Raises:
            StateDeclined: the state will never be sent; the message says why.
            WireError: nonsense, a refusal, or the end of the connection.
            TimeoutError: nothing came for too long.
        """
        match await channel.receive(self.stall_s):
            case None:
                raise WireError("closed the connection")
            case Refuse(reason, final=True):
                raise StateDeclined(reason)
            case Refuse(reason):
                raise WireError(f"refused: {reason}")
            case heard:
                return heard
