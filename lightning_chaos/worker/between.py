"""The time between two rounds, as an incarnation spends it: waiting for its turn, holding still."""

from __future__ import annotations

import time

from lightning_chaos.protocol import local
from lightning_chaos.replication.image import StateImage
from lightning_chaos.worker.station import Station
from lightning_chaos.worker.turns import Go, Hold, Turn


async def turn(station: Station, round_: int, samples: int) -> Turn:
    """What this worker may do at the begin of that round; waits until it is known.

    Args:
        station: of the incarnation.
        round_: that would begin.
        samples: committed by the rounds so far, over all data epochs.
    """
    station.samples, course = samples, station.course
    allowance = station.outfit.allowance
    allowance.waits(time.monotonic(), in_round=False)
    turn: Turn = await station.until(lambda: _look(station, round_))
    allowance.works(time.monotonic(), in_round=isinstance(turn, Go))
    if isinstance(turn, Go) and round_ > course.begun:
        station.mesh.let_missing_go()  # all have done a round without them
        for view, reason in course.enter(round_):
            station.chronicle.in_force(view, reason, round_)
            station.mesh.let_go(view)
        station.tell_peer(local.Begun(round_, samples))
        return Go(course.in_force or turn.view, turn.sharers)
    return turn


def _look(station: Station, round_: int) -> Turn | None:
    return station.course.turn(round_, apart=station.apart, frozen=station.exchange.frozen)


async def hold(station: Station, hold: Hold, image: StateImage | str, round_: int) -> None:
    """Serve the state until nobody for whom this worker stands still pulls any more.

    Args:
        station: of the incarnation.
        hold: as :func:`turn` gave it.
        image: the state, or why there is none.
        round_: that begins afterwards.
    """
    begun, donor, learners = time.monotonic(), station.donor, hold.view.learners
    if isinstance(image, str):
        donor.decline(image, [m.uid for m in learners])
    else:
        donor.offer(image, [m.uid for m in learners])
    try:
        await station.until(lambda: bool(station.apart) or station.course.held_enough(hold) or None)
    finally:
        donor.withdraw()
        station.chronicle.held(hold.view, round_, time.monotonic() - begun)
