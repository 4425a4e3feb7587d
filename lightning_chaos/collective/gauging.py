"""What is measured of the data links by the way, and the trains over those that lie idle.

Who hears asks: it knows which of its links have told nothing for :data:`LINK_S`, and how long a
train may be.  An ASK is a frame without payload, and the TRAIN that answers it is one that nobody
takes.  What that may cost is bounded for each node: it asks once in :data:`PACE_S` and gives once
in :data:`GIVE_S`, 64 KiB or :data:`~lightning_chaos.transport.train.TRAIN_S` of the link at most.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lightning_chaos.collective.actions import Verdict
from lightning_chaos.collective.frames import Frame, FrameKind
from lightning_chaos.collective.link import Link
from lightning_chaos.errors import WireError
from lightning_chaos.protocol.readings import Reading
from lightning_chaos.protocol.values import OpId, Uid
from lightning_chaos.transport.loss import LossMeter, segments
from lightning_chaos.transport.meter import LinkMeter
from lightning_chaos.transport.pacer import Pacer
from lightning_chaos.transport.train import TRAIN_BYTES

LINK_S = 15.0
"""A link that has told nothing for so long is asked for a train, and again after as long."""
PACE_S = 5.0
GIVE_S = 1.0
MOST_PUT_OFF = 5
"""Times that a train waits for the end of an operation; after that it goes in the middle of one."""
_TRAIN = memoryview(bytes(TRAIN_BYTES))


@dataclass(slots=True)
class End:
    """What there is for one other member, with or without a link."""

    pacer: Pacer
    queue: deque[tuple[Frame, memoryview]] = field(default_factory=deque)
    link: Link | None = None
    meter: LinkMeter = field(default_factory=lambda: LinkMeter(time.monotonic))
    """Of what comes from there, over all links that there have been."""
    loss: LossMeter = field(default_factory=lambda: LossMeter(time.monotonic))
    """Of what goes there."""
    asked_at: float = float("-inf")
    """When a train was asked for last, seconds."""

    def put(self, frame: Frame, payload: memoryview = _TRAIN[:0]) -> None:
        """Queue a frame."""
        self.queue.append((frame, payload))
        if self.link is not None:
            self.link.pump()


class Gauging:
    """Reads the meters of a worker's links, and asks for trains where they stand still.

    Args:
        ends: of the links, by member; others add to it and take from it.
    """

    def __init__(self, ends: Mapping[Uid, End]) -> None:
        self._ends = ends
        self._put_off = 0
        self._asked_at = self._gave_at = float("-inf")

    # ---- read ------------------------------------------------------------------------------

    def readings(self, trips: Mapping[Uid, float]) -> dict[Uid, Reading]:
        """Of what comes from each, as far as it is known.

        Args:
            trips: round trips, seconds, as far as they are known.
        """
        found = {}
        for uid, end in self._ends.items():
            end.meter.know_rtt(trips.get(uid, 0.0))
            if (reading := end.meter.reading()) is not None:
                found[uid] = reading
        return found

    def losses(self) -> dict[Uid, float]:
        """Of what goes to each, the share that was lost, as far as it is known."""
        found = {}
        for uid, end in self._ends.items():
            counted = segments(end.link.socket) if end.link is not None else None
            if counted is not None:
                end.loss.look(counted)
            if (share := end.loss.share) is not None:
                found[uid] = share
        return found

    # ---- trains ----------------------------------------------------------------------------

    def ask(self, uids: Collection[Uid], *, busy: bool) -> None:
        """Ask for a train over the link that was asked longest ago, if it is time.

        Args:
            uids: members whose links count.
            busy: an operation is under way; it is better to wait for its end, for a while.
        """
        now = time.monotonic()
        if now - self._asked_at < PACE_S:
            return
        idle = [
            (end.asked_at, uid)
            for uid, end in self._ends.items()
            if uid in uids
            and end.link is not None
            and not end.queue
            and min(end.meter.silent_s, now - end.asked_at) > LINK_S
        ]
        if not idle:
            return
        if busy and self._put_off < MOST_PUT_OFF:
            self._put_off += 1
            return
        end = self._ends[min(idle)[1]]
        self._put_off, self._asked_at, end.asked_at = 0, now, now
        end.put(_frame(FrameKind.ASK, offset=end.meter.ask_train()))

    def place(self, sender: Uid, frame: Frame) -> Verdict:
        """A frame came that belongs to a train.

        Raises:
            WireError: no faithful member sends it.
        """
        wanted = frame.offset if frame.kind is FrameKind.ASK else frame.length
        if not 0 < wanted <= TRAIN_BYTES or (frame.kind is FrameKind.ASK and frame.length):
            raise WireError(f"{frame.kind.name} of {wanted} bytes, allowed are {TRAIN_BYTES}")
        end = self._ends.get(sender)
        if end is None:
            return Verdict.DROP  # it is let go
        if frame.kind is FrameKind.TRAIN:
            end.meter.begin_train()
        elif not end.queue and time.monotonic() - self._gave_at >= GIVE_S:
            self._gave_at = time.monotonic()
            end.put(_frame(FrameKind.TRAIN, length=wanted), _TRAIN[:wanted])
        return Verdict.DROP

    def left_unread(self, sender: Uid) -> None:
        """A frame from that one has to wait, and all behind it."""
        if sender in self._ends:
            self._ends[sender].meter.left_unread()


def _frame(kind: FrameKind, *, offset: int = 0, length: int = 0) -> Frame:
    return Frame(kind, 0, 0, OpId(0, 0), 0, offset, length, 0.0)
