"""A join, as a newcomer's incarnation goes through it: a place, the state, the seat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from lightning_chaos.errors import JoinError, StateDeclined, StateError
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import Member, OpId, View
from lightning_chaos.replication.image import StateImage
from lightning_chaos.replication.puller import pull
from lightning_chaos.replication.shelf import Shelf
from lightning_chaos.replication.values import Company, Progress, Pulled, Source
from lightning_chaos.transport.address import Address
from lightning_chaos.worker.outfit import Wiring
from lightning_chaos.worker.station import Station

T = TypeVar("T")
PULL_STALL_S = 5.0
"""So long at least a donor may be silent that is asked for something, seconds."""
MAX_STATE_BYTES = 1 << 40


async def learn(station: Station) -> View:
    """Wait for a place as learner; the view says when and from whom to pull.

    Raises:
        JoinError: the run does not take this node, or has lost it again.
    """
    return await station.until(lambda: _place_as_learner(station))


def _place_as_learner(station: Station) -> View | None:
    if station.apart:
        raise JoinError(station.apart)
    view = station.course.view
    here = any(m.uid == station.outfit.me.uid for m in view.learners)
    return view if here else None


async def pull_state(
    station: Station,
    wiring: Wiring,
    view: View,
    held: StateImage,
    rates: dict[str, float],
    show: Callable[[Progress], None],
) -> Pulled:
    """Pull the state from all members of that view at once.

    Args:
        station: of the newcomer.
        wiring: how its links are made.
        view: as :func:`learn` gave it.
        held: its own state: shards that are equal are not pulled.
        rates: by name of a node, bytes/s, as earlier pulls have shown them; this pull's are added.
        show: told of the progress.

    Raises:
        JoinError: the members cannot send it, or the run has lost this node again.
    """

    def tell(progress: Progress) -> None:
        station.course.pulling = True
        station.tell_peer(local.Pulling(progress.bytes, progress.total))
        show(progress)

    company = _company(station, view)
    station.donor.pass_on(company.shelf if company else None)
    try:
        pulled = await pull_from(station, wiring, view.members, held, rates, tell, company)
    except StateDeclined as error:
        raise JoinError(str(error)) from None
    except StateError as error:
        # All donors let go of it: the run has gone on, so another incarnation may try.
        station.fall_out(str(error))
        raise JoinError(str(error)) from None
    station.tell_peer(local.Pulling(1, 1))  # whole, even if there was nothing to pull
    return pulled


async def pull_from(
    station: Station,
    wiring: Wiring,
    donors: Iterable[Member],
    held: StateImage | None,
    rates: dict[str, float],
    progress: Callable[[Progress], None],
    company: Company | None = None,
) -> Pulled:
    """Pull the state that these members offer to this one, over the links that there are.

    Args:
        station: of this incarnation.
        wiring: how its links are made.
        donors: oldest first.
        held: its own state: shards that are equal are not pulled.
        rates: see :func:`pull_state`.
        progress: told after every shard.
        company: other newcomers that pull it too, if there are any.

    Raises:
        JoinError: the run has lost this node.
        StateError: no donor is left; the message names each one's reason.
        StateDeclined: because they cannot send it.
    """
    me, view = station.outfit.me.uid, station.course.view
    sources = [
        Source(m.uid, m.node, Address(m.host, m.port), rates.get(m.node))
        for m in donors
        if m.uid != me and view.joins(m.uid, me)
    ]
    work = pull(
        sources,
        run=station.config.run,
        uid=me,
        local_from=next((source.uid for source in sources), ""),
        dialler=wiring.dialler,
        tls=wiring.dial_tls,
        held=held,
        progress=progress,
        stall_s=max(PULL_STALL_S, station.mesh.timeout_s),  # whom a view keeps, a pull waits for
        max_bytes=MAX_STATE_BYTES,
        company=company,
    )
    pulled = await _unless_apart(station, work)
    for share in pulled.donors:
        if share.measured is not None and not share.measured.lower_bound:
            rates[share.name] = share.measured.bytes_per_s
    return pulled


def _company(station: Station, view: View) -> Company | None:
    """The other newcomers of that view, None if there are none."""
    me = station.outfit.me.uid
    fellows = tuple(
        Source(m.uid, m.node, Address(m.host, m.port)) for m in view.learners if m.uid != me
    )
    if not fellows:
        return None
    rank = [m.uid for m in view.learners].index(me)
    return Company(rank, fellows, Shelf([fellow.uid for fellow in fellows]))


async def _unless_apart(station: Station, work: Coroutine[Any, Any, T]) -> T:
    """Do this, but give it up when this node falls out of the run."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    end = loop.create_task(station.until(lambda: station.apart or None))
    try:
        await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise JoinError(end.result())
        return task.result()
    finally:
        task.cancel()
        end.cancel()
        await asyncio.gather(task, end, return_exceptions=True)


async def take_seat(station: Station, view: View, last: OpId) -> None:
    """Say that the state of round ``view.switch`` is here, and wait for the seat.

    Args:
        station: of the newcomer.
        view: as :func:`learn` gave it.
        last: the last operation the state contains.

    Raises:
        JoinError: the run has lost this node again.
    """
    station.exchange.start(last)
    station.check_pulled()
    station.course.begun = view.switch - 1
    await station.until(lambda: _all_linked(station))
    station.tell_peer(local.Pulled(view.epoch, view.switch))
    await station.until(lambda: _seated(station))
    station.donor.pass_on(None)


def _all_linked(station: Station) -> bool | None:
    if station.apart:
        raise JoinError(station.apart)
    view, linked = station.course.view, station.mesh.linked
    due = [uid for uid in view.uids if view.joins(station.outfit.me.uid, uid)]
    return True if all(uid in linked for uid in due) else None


def _seated(station: Station) -> bool | None:
    if station.apart:
        raise JoinError(station.apart)
    return True if station.course.seated else None
