"""What a peer and its own worker say to each other, in order, over a socket pair.

A worker obeys: it starts no round without a permit, and between :class:`Freeze` and
:class:`Install` it completes nothing, accepts no frame and hands no result to training.
"""

from __future__ import annotations

import msgspec

from lightning_chaos.errors import WireError
from lightning_chaos.protocol.messages import Fingerprint
from lightning_chaos.protocol.ranges import Count, Round, Seconds
from lightning_chaos.protocol.readings import Reading
from lightning_chaos.protocol.values import Ballot, Decision, Host, Member, Report, Uid, Uids, View


class Local(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages between a peer and its worker."""


# ---- peer to worker ------------------------------------------------------------------------


class Standing(Local, frozen=True, array_like=True, tag=True):
    """The search is over: this node founded the run or found it."""

    me: Member
    newcomer: bool
    view: View
    round: Round
    """Highest round known to be begun, -1 before the first."""
    told: tuple[Round, Count] = (-1, 0)
    """Generation and rounds of the last round that any candidate's run logs tell of."""


class Beat(Local, frozen=True, array_like=True, tag=True):
    """The peer lives; said every timeout, at least every second."""


class Permit(Local, frozen=True, array_like=True, tag=True):
    """Rounds up to this one may be started, under the views installed so far."""

    upto: Round


class Freeze(Local, frozen=True, array_like=True, tag=True):
    """Stop completing operations and answer with :class:`Frozen`."""

    ballot: Ballot


class Install(Local, frozen=True, array_like=True, tag=True):
    """A committed view; with a decision it also ends the freeze."""

    view: View
    decision: Decision | None
    reason: str


class Refused(Local, frozen=True, array_like=True, tag=True):
    """The run does not take this node, or the search failed; training cannot begin."""

    reason: str
    setting: str = ""


class Removed(Local, frozen=True, array_like=True, tag=True):
    """The run went on without this node; it may come back as a newcomer."""

    reason: str
    where: tuple[str, ...] = ()
    """Addresses ``host:port`` of those who went on, as far as they are known."""


class GaveUp(Local, frozen=True, array_like=True, tag=True):
    """This node has waited long enough for a quorum; its training ends."""

    reason: str


class RunOver(Local, frozen=True, array_like=True, tag=True):
    """The run this node looked for has finished."""

    round: Round


class AllDone(Local, frozen=True, array_like=True, tag=True):
    """Every member has finished, or is gone: data connections may be closed."""


class Stop(Local, frozen=True, array_like=True, tag=True):
    """Somebody asked the whole run to end; the worker raises its end flag."""

    reason: str


class Waiting(Local, frozen=True, array_like=True, tag=True):
    """Why permits do not come, for people ('' when they do again)."""

    reason: str


class Timeout(Local, frozen=True, array_like=True, tag=True):
    """Longest silence to be tolerated from now on: round trips have been measured."""

    seconds: Seconds


class RoundTrips(Local, frozen=True, array_like=True, tag=True):
    """Round trips to the members, as far as they are known; said when one has changed."""

    seconds: dict[Uid, Seconds]


class NoLink(Local, frozen=True, array_like=True, tag=True):
    """To whom the peer has no link from now on, and why; said when that changes."""

    reasons: dict[Uid, str]


class Reached(Local, frozen=True, array_like=True, tag=True):
    """The peer has a link to that one, perhaps anew: data are worth another call at once."""

    uid: Uid


# ---- worker to peer ------------------------------------------------------------------------


class AskSeat(Local, frozen=True, array_like=True, tag=True):
    """The worker is ready to train; a newcomer's peer now asks for a seat."""

    fingerprint: Fingerprint
    at_round: Round = -1
    """Ask only when the run has begun this round."""
    samples: Count = 0
    """Committed by the rounds that this worker's state holds, over all data epochs."""


class Begun(Local, frozen=True, array_like=True, tag=True):
    """The worker has started this round."""

    round: Round
    samples: Count = 0
    """Samples committed by the rounds before, over all data epochs."""


class Slow(Local, frozen=True, array_like=True, tag=True):
    """Who is slow, as all workers conclude from the figures of the rounds."""

    uids: Uids


class Frozen(Local, frozen=True, array_like=True, tag=True):
    """The worker is frozen and holds this."""

    ballot: Ballot
    report: Report


class Pulling(Local, frozen=True, array_like=True, tag=True):
    """A learner's progress; silence for too long costs it its place."""

    bytes: Count
    total: Count


class Pulled(Local, frozen=True, array_like=True, tag=True):
    """A learner holds the whole state at the begin of this round."""

    epoch: Count
    round: Round


class Broken(Local, frozen=True, array_like=True, tag=True):
    """A data link failed; ``mended`` when a new connection replaced it and frames were lost."""

    uid: Uid
    reason: str
    mended: bool


class Restored(Local, frozen=True, array_like=True, tag=True):
    """There is a data link again, and nothing was lost on it that counts."""

    uid: Uid


class Late(Local, frozen=True, array_like=True, tag=True):
    """This worker has given all to an operation and waits; said again and again."""

    operation: str
    seconds: Seconds
    owing: dict[Uid, Count]
    """Whom it waits for, and how many workers in turn that one may be waiting for, with itself."""


class Allowance(Local, frozen=True, array_like=True, tag=True):
    """How long others should wait for this worker before they count it as hung."""

    seconds: Seconds


class Measured(Local, frozen=True, array_like=True, tag=True):
    """What this worker's data links carry, as far as that is known."""

    rates: dict[Uid, Reading]
    """Of what comes from each."""
    total_bytes: Count
    """Of the longest vector that is reduced."""
    host: Host | None = None
    """How its machine is doing."""
    losses: dict[Uid, float] = {}
    """Of what goes to each, the share that was lost, 0..1."""


class SawEpoch(Local, frozen=True, array_like=True, tag=True):
    """A frame of an epoch that this worker has not installed came from that member."""

    uid: Uid
    epoch: Count


class Word(Local, frozen=True, array_like=True, tag=True):
    """Another node's worker said, on a data link, that its incarnation votes no more."""

    uid: Uid
    reason: str


class Leaving(Local, frozen=True, array_like=True, tag=True):
    """The worker wants to go between two rounds."""


class Done(Local, frozen=True, array_like=True, tag=True):
    """Training ended after this round."""

    round: Round


class Farewell(Local, frozen=True, array_like=True, tag=True):
    """The worker ends now, without a plan."""

    reason: str


AnyLocal = (
    Standing
    | Beat
    | Permit
    | Freeze
    | Install
    | Refused
    | Removed
    | GaveUp
    | RunOver
    | AllDone
    | Stop
    | Waiting
    | Timeout
    | RoundTrips
    | NoLink
    | Reached
    | AskSeat
    | Begun
    | Slow
    | Frozen
    | Pulling
    | Pulled
    | Broken
    | Restored
    | Late
    | Allowance
    | Measured
    | SawEpoch
    | Word
    | Leaving
    | Done
    | Farewell
)

_decoder: msgspec.msgpack.Decoder[AnyLocal] = msgspec.msgpack.Decoder(AnyLocal)


def encode_local(message: Local) -> bytes:
    """Bytes of a message, without framing."""
    return msgspec.msgpack.encode(message)


def decode_local(data: bytes | bytearray | memoryview) -> AnyLocal:
    """The message in these bytes.

    Raises:
        WireError: not such a message.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"not a message between peer and worker: {error}") from error
