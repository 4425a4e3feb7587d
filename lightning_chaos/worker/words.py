"""What the words of its peer mean to a station."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lightning_chaos.errors import FingerprintError, JoinError, QuorumLost, RunFinished
from lightning_chaos.protocol import local

if TYPE_CHECKING:
    from lightning_chaos.worker.station import Station

log = logging.getLogger(__name__)


def heed(station: Station, word: local.AnyLocal) -> None:
    """Do what the peer says, on the loop; whoever waits looks again."""
    match word:
        case local.Standing():
            station.stand(word)
        case local.Permit(upto=upto):
            station.course.permit(upto)
        case local.Freeze(ballot=ballot):
            station.freeze(ballot)
        case local.Install(view=view, decision=decision, reason=reason):
            station.install(view, decision, reason)
        case local.Refused(reason=reason, setting=setting):
            station.fail(FingerprintError(reason) if setting else JoinError(reason))
        case local.GaveUp(reason=reason):
            station.fail(QuorumLost(reason))
        case local.Removed(reason=reason, where=where):
            station.where = where
            station.fall_out(reason)
        case local.RunOver(round=round_):
            station.fail(RunFinished(round_))
        case local.AllDone():
            station.all_done = True
        case local.Stop(reason=reason):
            station.on_stop(reason)
        case local.Waiting(reason=reason):
            station.waiting = reason
            station.chronicle.waiting(reason)
        case local.Timeout(seconds=seconds) if station.standing is not None:
            station.mesh.timeout_s = station.operations.timeout_s = seconds
        case local.RoundTrips(seconds=trips) if station.standing is not None:
            station.mesh.trips = trips
        case local.Reached(uid=uid) if station.standing is not None:
            station.mesh.reached(uid)
        case local.NoLink(reasons=reasons):
            station.chronicle.links(reasons)
        case _:
            log.debug("the peer said %s", type(word).__name__)
    station.tell()
