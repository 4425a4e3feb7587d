"""What peers say to each other, and its encoding.

One MessagePack array per message, tagged with its name.  Decoding checks every field against
its type; anything unknown or malformed raises :class:`WireError` and changes nothing.
"""

from __future__ import annotations

import msgspec

from lightning_chaos.errors import WireError
from lightning_chaos.protocol.ranges import Count, Hops, Mbit, Micros, Percent, Round, Seconds, Step
from lightning_chaos.protocol.readings import Trust
from lightning_chaos.protocol.trips import NO_ECHO
from lightning_chaos.protocol.values import (
    Ballot,
    Decision,
    Host,
    Member,
    Members,
    Proposal,
    Report,
    Uid,
    Uids,
    View,
)

Fingerprint = tuple[tuple[str, str], ...]
"""Settings that members must share: (name, value) in the order they are compared."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages between peers."""


class Hello(Message, frozen=True, array_like=True, tag=True):
    """First message on a control connection, both ways."""

    version: int
    run: str
    sender: Member


class Refuse(Message, frozen=True, array_like=True, tag=True):
    """Why the sender closes the connection or does not take a newcomer."""

    reason: str
    setting: str = ""
    """First differing setting, when that is the reason."""


class Status(Message, frozen=True, array_like=True, tag=True):
    """Where the sender stands; sent after Hello, on change and as heartbeat."""

    epoch: Count
    """Epoch installed, 0 if none."""
    round: Round
    """Highest round begun, -1 before the first."""
    finished: Round = -1
    """Round after which the sender's training ended, -1 while it trains."""
    waiting: str = ""
    """What the sender waits for, for people."""
    unreachable: Uids = ()
    """What :class:`Unreachable` said last, for whoever missed it."""
    sent: Micros = 0
    """The sender's clock, microseconds modulo 2³², 0 if nobody measures with it (:mod:`.trips`)."""
    echo: tuple[Micros, Micros] = NO_ECHO
    """What it read of the receiver's clock in its last heartbeat, and how long ago."""
    allows: Seconds = 0.0
    """How long others should wait for its worker, seconds; 0: it does not say."""
    slow: Uids = ()
    """Members that compute far longer than the others, for people."""


class ViewNews(Message, frozen=True, array_like=True, tag=True):
    """The view a member has installed, told to newcomers and candidates."""

    view: View


class Offer(Message, frozen=True, array_like=True, tag=True):
    """A candidate asks another to let it found the run."""

    ballot: Ballot


class Accept(Message, frozen=True, array_like=True, tag=True):
    """The sender will join the run that this offer founds, and accepts no other meanwhile."""

    ballot: Ballot


class Withdraw(Message, frozen=True, array_like=True, tag=True):
    """The offer no longer stands; who accepted it is free."""

    ballot: Ballot


class Introduce(Message, frozen=True, array_like=True, tag=True):
    """Candidates to whom the sender is linked, for one that may not know them."""

    members: Members


class JoinRequest(Message, frozen=True, array_like=True, tag=True):
    """A newcomer asks the lead for a seat."""

    member: Member
    fingerprint: Fingerprint
    unreachable: Uids = ()
    """Members that it has dialled in vain: it needs no link to everybody."""


class JoinReady(Message, frozen=True, array_like=True, tag=True):
    """A learner holds the whole state at the begin of that round."""

    epoch: Count
    round: Round


class LeaveRequest(Message, frozen=True, array_like=True, tag=True):
    """A member asks the lead to be planned out."""

    uid: Uid


class FlushRequest(Message, frozen=True, array_like=True, tag=True):
    """A member lost frames on a link that works again: flush without changing the members."""

    epoch: Count
    reason: str


class Unreachable(Message, frozen=True, array_like=True, tag=True):
    """All of the view to whom the sender has no link at present (empty: it has all links)."""

    epoch: Count
    uids: Uids


class LastWord(Message, frozen=True, array_like=True, tag=True):
    """An incarnation votes no more; said by its peer, its worker or its agent."""

    uid: Uid
    reason: str


class Prepare(Message, frozen=True, array_like=True, tag=True):
    """The lead asks for agreement; also the question what was agreed to before."""

    proposal: Proposal
    carried: tuple[Proposal, ...] = ()
    """Older proposals that may be committed somewhere and count as last views too."""


class Ack(Message, frozen=True, array_like=True, tag=True):
    """The sender agrees and promises to agree to no lower ballot."""

    ballot: Ballot
    prior: tuple[Proposal, ...]
    """Proposals it had ACKed since its installed view and not seen resolved."""
    report: Report | None = None


class Nack(Message, frozen=True, array_like=True, tag=True):
    """The sender does not agree; says why and where it stands."""

    ballot: Ballot
    reason: str
    promised: Ballot
    epoch: Count
    granted: Round
    """Highest round its worker has a permit for."""
    prior: tuple[Proposal, ...] = ()
    final: bool = False
    """Asking again with a higher ballot will not help."""


class Commit(Message, frozen=True, array_like=True, tag=True):
    """The proposal is the next view."""

    proposal: Proposal
    decision: Decision | None = None


class Abort(Message, frozen=True, array_like=True, tag=True):
    """The proposal of that ballot will not be committed."""

    ballot: Ballot


class AskCommit(Message, frozen=True, array_like=True, tag=True):
    """The sender saw a frame of an epoch above its own and asks for the COMMIT."""

    epoch: Count


class LinkFigures(Message, frozen=True, array_like=True, tag=True):
    """What a member has measured of its links to all others, told to the lead; by rank."""

    epoch: Count
    """Of the view whose members they are."""
    rates: tuple[Step, ...]
    """Of what comes from each."""
    trips: tuple[Step, ...]
    """Round trip to each."""
    trusts: tuple[Trust, ...]
    """How each rate was learned."""
    ages: tuple[Step, ...]
    """Of each rate."""
    losses: tuple[Step, ...]
    """Share lost of what goes to each."""
    card_mbit: Mbit = 0
    """Nominal speed of its network card, 0 if it is not known."""

    @property
    def links(self) -> int:
        """Of so many members all figures are there, the sender's own place included."""
        return min(map(len, (self.rates, self.trips, self.trusts, self.ages, self.losses)))


class Gauges(Message, frozen=True, array_like=True, tag=True):
    """What the sender has measured itself, for visitors."""

    host: Host
    row: LinkFigures
    late: tuple[Percent, ...]
    """How many heartbeats of a hundred took as long as if something had been lost; by rank."""


class Carry(Message, frozen=True, array_like=True, tag=True):
    """A message on its way between two that have no link, through those that have."""

    origin: Uid
    to: Uid
    hops: Hops
    """How many more may pass it on, and the receiver itself."""
    content: bytes
    """The message, encoded."""


class StopRequest(Message, frozen=True, array_like=True, tag=True):
    """Ask the run to end, everywhere after the same round (``lightning-chaos stop``)."""

    reason: str


AnyMessage = (
    Hello
    | Refuse
    | Status
    | ViewNews
    | Offer
    | Accept
    | Withdraw
    | Introduce
    | JoinRequest
    | JoinReady
    | LeaveRequest
    | FlushRequest
    | Unreachable
    | LastWord
    | Prepare
    | Ack
    | Nack
    | Commit
    | Abort
    | AskCommit
    | LinkFigures
    | Gauges
    | Carry
    | StopRequest
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """Bytes of a message, without framing."""
    return _encoder.encode(message)


def decode(data: bytes | bytearray | memoryview) -> AnyMessage:
    """The message in these bytes.

    Raises:
        WireError: unknown tag, wrong types, missing fields, trailing or truncated bytes.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"not a message of protocol: {error}") from error
