"""Members compare their whole states between two rounds; who differs takes what is right.

Everybody offers the others its state before anybody says its digest, so whoever finds that it
differs can pull at once, from all who are right, and only the shards that differ.  The others
stand still until it has them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from lightning_chaos.errors import JoinError, StateError
from lightning_chaos.protocol.values import Member, OpId
from lightning_chaos.replication.image import StateImage
from lightning_chaos.replication.majority import Ruling, rule
from lightning_chaos.replication.values import Pulled
from lightning_chaos.worker.station import Station
from lightning_chaos.worker.turns import Outcome

COMPARE = "comparison of states"
CORRECT = "correction of states"


@dataclass(frozen=True, slots=True)
class Settled:
    """How it ended."""

    outcome: Outcome
    """Of the comparison."""
    ruling: Ruling
    pulled: Pulled | None
    """What this member is to take over, None if it was right or there is a problem."""
    problem: str
    """Why this member, which differs, could not pull; '' without one."""
    seconds: float
    """What this member stood still for the correction."""


async def settle(
    station: Station,
    image: StateImage | None,
    trusted: Collection[str],
    next_op: Callable[[], OpId],
    pull: Callable[[Collection[Member]], Awaitable[Pulled]],
) -> Settled | None:
    """One comparison and, if it finds a difference, one correction.

    Args:
        station: of this incarnation.
        image: this member's state, None if it cannot be laid out; then it is not compared.
        trusted: who may be right; anybody if empty.
        next_op: number of the next operation of the round.
        pull: takes the state from these members.

    Returns:
        None when this node has fallen out of the run.
    """
    me, donor, operations = station.outfit.me.uid, station.donor, station.operations
    root = b""
    if image is not None:
        root = image.manifest.root
        donor.offer(image, [uid for uid in station.course.view.uids if uid != me])
    try:
        outcome = await operations.operate(next_op(), COMPARE, root, None, 0.0, None)
        if outcome is None:
            return None
        begun, pulled, problem = time.monotonic(), None, ""
        ruling = rule(outcome.view.uids, outcome.blobs, trusted)
        if ruling.wrong:
            if me in ruling.wrong:
                donor.withdraw()
                right = [m for m in station.course.view.members if m.uid in ruling.right]
                try:
                    pulled = await pull(right)
                except (StateError, JoinError) as error:
                    problem = str(error)
            if await operations.operate(next_op(), CORRECT, b"", None, 0.0, None) is None:
                return None
        return Settled(outcome, ruling, pulled, problem, time.monotonic() - begun)
    finally:
        donor.withdraw()
