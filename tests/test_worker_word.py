"""A worker whose peer has died tells the others, however far they are, before it comes back."""

from __future__ import annotations

import asyncio
import socket

from test_collective_links import BOUND_S, cluster, in_loop

from lightning_chaos.monitor.runlog import RunLog
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import Member, View
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import dial_tcp
from lightning_chaos.transport.door import open_door
from lightning_chaos.worker.outfit import Wiring
from lightning_chaos.worker.station import Station


async def dial_slowly(address: Address, timeout_s: float) -> socket.socket:
    """As over a long link."""
    await asyncio.sleep(0.1)
    return await dial_tcp(address, timeout_s)


def test_the_word_that_the_peer_has_died_is_said_before_the_links_are_closed() -> None:
    async def scenario() -> None:
        async with cluster(1) as (a,):
            me = Member("me", 2, "127.0.0.1", 1)
            members = (a.member, me)
            view = View("run", 0, 1, members, (), 0, mesh_plan([m.uid for m in members]))
            wiring = Wiring(
                dialler=dial_slowly, dial_tls=None, accept_tls=None, rate_bytes_per_s=None
            )
            config = PeerConfig("run", "me", timeout_s=BOUND_S)  # so long the word may take
            with open_door("127.0.0.1", 0) as door:
                station = Station(config, door, wiring, RunLog(None, "me"), print)
                station.stand(local.Standing(me, False, view, 0))
                station.install(view, None, "so it was")
                station._on_peer_gone("killed")
                await station.aclose("it comes back")
            told = [event for event in a.told if event[0] == "word"]
            assert told == [("word", me.uid, "its peer is gone (killed)")]

    in_loop(scenario)
