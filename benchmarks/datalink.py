"""A data link between two nodes of either of the lab's networks, and what its trains tell."""

from __future__ import annotations

import asyncio
import socket
import time

from doors import dialler_of, open_to

from lightning_chaos.collective import gauging
from lightning_chaos.collective.actions import Landing, Verdict
from lightning_chaos.collective.frames import Frame
from lightning_chaos.collective.links import DataLinks
from lightning_chaos.protocol.readings import Reading
from lightning_chaos.protocol.values import Member, Uid
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.transport.door import Kind
from lightning_chaos.transport.pacer import Pacer

TRAINS = 3
PAUSE_S = 0.3
"""Before each train: TCP begins again after a silence like that."""
PATIENCE_S = 20.0


class _Idle:
    """A driver without operations."""

    def __init__(self) -> None:
        self.linked = asyncio.Event()

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        raise AssertionError(f"{sender} sent {frame}")

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        raise AssertionError(f"{sender} sent {frame}")

    def connected(self, uid: Uid) -> None:
        self.linked.set()

    def broken(self, uid: Uid, reason: str) -> None:
        pass  # at the end one of the two is first

    def word(self, uid: Uid, reason: str) -> None:
        raise AssertionError(f"{uid} says {reason}")


async def known_by_trains(
    network: Relays | Namespaces, giver: str, asker: str, trip_s: float
) -> Reading:
    """What is known at ``asker`` of a new link from ``giver`` after :data:`TRAINS` trains."""
    ends = {name: _links(network, name) for name in (giver, asker)}
    (gives, given), (asks, linked) = ends[giver], ends[asker]
    over = asyncio.Event()

    async def serve(sock: socket.socket) -> None:
        gives.adopt(sock)
        await over.wait()

    async with open_to(network, giver, serve, Kind.DATA) as address:
        try:
            member = Member(giver, 1, *address)
            await asks.connect(member, PATIENCE_S)
            async with asyncio.timeout(PATIENCE_S):
                await given.linked.wait()
                await linked.linked.wait()
            return await _ask(asks.gauging, member.uid, trip_s)
        finally:
            over.set()
            for links, _ in ends.values():
                await links.aclose()


async def _ask(asks: gauging.Gauging, giver: Uid, trip_s: float) -> Reading:
    """As workers do, but without their rests of seconds."""
    asks.readings({giver: trip_s})
    rests = {name: getattr(gauging, name) for name in ("LINK_S", "PACE_S", "GIVE_S")}
    for name in rests:
        setattr(gauging, name, 0.0)
    try:
        for _ in range(TRAINS):
            asks.ask([giver], busy=False)
            await asyncio.sleep(trip_s + PAUSE_S)
    finally:
        for name, rest_s in rests.items():
            setattr(gauging, name, rest_s)
    async with asyncio.timeout(PATIENCE_S):
        while giver not in (known := asks.readings({giver: trip_s})):
            await asyncio.sleep(PAUSE_S)  # a busy machine takes longer over them
    return known[giver]


def _links(network: Relays | Namespaces, name: str) -> tuple[DataLinks, _Idle]:
    idle = _Idle()
    links = DataLinks(
        f"{name}/1",
        "run",
        idle,
        dialler=dialler_of(network, name),
        pacer_for=lambda _: Pacer(None, time.monotonic),
    )
    return links, idle
