"""What an incarnation works with from the moment it knows the run."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.protocol.local import Standing
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Member, Uid
from lightning_chaos.replication.donor import Donor
from lightning_chaos.transport.dial import Dialler
from lightning_chaos.transport.pacer import Pacer
from lightning_chaos.worker.allowance import Allowance
from lightning_chaos.worker.chronicle import Chronicle
from lightning_chaos.worker.course import Course
from lightning_chaos.worker.mesh import Mesh, MeshOwner
from lightning_chaos.worker.operations import Operations, OperationsOwner


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """How the links of an incarnation are made, as its node was told."""

    dialler: Dialler
    """Opens data and shard connections."""
    dial_tls: ssl.SSLContext | None
    """For connections this side opens, None for plain bytes."""
    accept_tls: ssl.SSLContext | None
    """For connections it takes."""
    rate_bytes_per_s: float | None
    """Speed limit of each link, None for none."""


class OutfitOwner(MeshOwner, OperationsOwner, Protocol):
    """The station."""


@dataclass(frozen=True, slots=True)
class Outfit:
    """The parts, which know one another and their station."""

    me: Member
    course: Course
    exchange: Exchange
    mesh: Mesh
    operations: Operations
    donor: Donor
    allowance: Allowance


def fit_out(
    standing: Standing,
    config: PeerConfig,
    wiring: Wiring,
    chronicle: Chronicle,
    owner: OutfitOwner,
) -> Outfit:
    """The outfit of an incarnation.

    Args:
        standing: what its peer said of the run.
        config: of that peer.
        wiring: how its links are made.
        chronicle: told what is stable.
        owner: the station.
    """
    pacers: WeakValueDictionary[Uid, Pacer] = WeakValueDictionary()

    def pacer_for(uid: Uid) -> Pacer:
        """One speed limit per link, whatever is sent on it."""
        return pacers.setdefault(uid, Pacer(wiring.rate_bytes_per_s, time.monotonic))

    allowance = Allowance(config.worker_timeout_s)
    me, timeout_s = standing.me, Timeouts(config.timeout_s).least_s
    exchange = Exchange(me.uid, time.monotonic)
    mesh = Mesh(
        me,
        config.run,
        timeout_s,
        owner,
        dialler=wiring.dialler,
        pacer_for=pacer_for,
        dial_tls=wiring.dial_tls,
        accept_tls=wiring.accept_tls,
    )
    operations = Operations(
        exchange,
        mesh,
        chronicle,
        owner,
        timeout_s=timeout_s,
        allowance=allowance,
    )
    course = Course(me.uid, standing.view, newcomer=standing.newcomer)
    donor = Donor(config.run, pacer_for, wiring.accept_tls, patience_s=config.patience_s)
    return Outfit(me, course, exchange, mesh, operations, donor, allowance)
