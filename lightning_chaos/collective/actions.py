"""What comes out of an exchange: things to send, and news for training and for the peer."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from lightning_chaos.collective.frames import Frame
from lightning_chaos.collective.roots import Floats
from lightning_chaos.errors import ChaosError
from lightning_chaos.protocol.values import OpId, Uid, View


class Verdict(enum.Enum):
    """What to do with a frame that is not taken."""

    PAUSE = "leave it unread, and all that comes after it, until Resume"
    DROP = "read its payload and forget it"


@dataclass(slots=True, eq=False)
class Landing:
    """Where the payload of one frame goes."""

    memory: memoryview | None
    """Exactly as long as the payload; None once the payload is not wanted any more."""


class Send(msgspec.Struct, frozen=True):
    """Send a frame to a member, after all that was sent to it before.

    The payload is not copied.  It keeps its value for as long as the receiver can want it.
    """

    to: Uid
    frame: Frame
    payload: memoryview


class Finished(msgspec.Struct, frozen=True):
    """This member holds every result of the operation."""

    op: OpId
    label: str
    view: View
    """Whose members contributed, by its plan: the same at all of them."""
    weights: tuple[float, ...]
    """Weight of each member, oldest first."""
    total: float
    """Sum of the weights."""
    blobs: tuple[bytes, ...]
    """Blob of each."""
    result: Floats | None
    """Weighted mean, shape of the vector; valid until the operation after the next begins."""


class Stable(msgspec.Struct, frozen=True):
    """Everybody has finished that operation: it can never be lost or done again."""

    op: OpId


class Failed(msgspec.Struct, frozen=True):
    """The operation cannot finish at any member; training must end with this error."""

    op: OpId
    error: ChaosError


class AskCommit(msgspec.Struct, frozen=True):
    """A member sent a frame of a view that is not installed here: ask it for the COMMIT."""

    uid: Uid
    epoch: int


class Misbehaved(msgspec.Struct, frozen=True):
    """A member sent what no faithful member sends; its membership must end."""

    uid: Uid
    reason: str


class Resume(msgspec.Struct, frozen=True):
    """Frames left unread may be acceptable now."""


class Purge(msgspec.Struct, frozen=True):
    """Frames queued and not yet begun to be sent are of no use any more."""


Action = Send | Finished | Stable | Failed | AskCommit | Misbehaved | Resume | Purge
