"""What goes into the state machine and what comes out of it."""

from __future__ import annotations

import enum

import msgspec

from lightning_chaos.planning.graph import Graph
from lightning_chaos.planning.values import ReducePlan
from lightning_chaos.protocol.local import AnyLocal, Local
from lightning_chaos.protocol.messages import AnyMessage, Message
from lightning_chaos.protocol.values import Member, Uid

# ---- events: what the driver saw -----------------------------------------------------------


class Linked(msgspec.Struct, frozen=True):
    """A control connection to this incarnation is up (the first one, if there are two)."""

    member: Member


class Unlinked(msgspec.Struct, frozen=True):
    """No control connection to this incarnation is left, and dialling it once more failed."""

    uid: Uid
    reason: str
    unsent: tuple[Message, ...] = ()
    """What it was to be sent meanwhile."""


class ProcessGone(msgspec.Struct, frozen=True):
    """The peer process of this incarnation, on this same machine, does not exist any more."""

    uid: Uid


class Heard(msgspec.Struct, frozen=True):
    """A message from a linked incarnation."""

    sender: Uid
    message: AnyMessage


class Searched(msgspec.Struct, frozen=True):
    """Discovery has tried every address it knows; who answered is linked by now."""

    exclusive: bool
    """Nobody else can be founding this run now (a lock is held)."""
    problem: str = ""
    """Why this node may neither join nor found, '' if it may."""
    silent: tuple[str, ...] = ()
    """Addresses where somebody should be and nobody answers."""


class FromWorker(msgspec.Struct, frozen=True):
    """A message of this node's worker."""

    message: AnyLocal


class WorkerGone(msgspec.Struct, frozen=True):
    """This node's worker process ended or closed its socket."""

    reason: str


class Tick(msgspec.Struct, frozen=True):
    """Time has passed; the driver sends one at least every ``timeout / 20``."""

    late_s: float = 0.0
    """How much later than that it comes: for so long this peer could not hear anybody, seconds."""


class Replanned(msgspec.Struct, frozen=True):
    """The answer to :class:`Replan`."""

    graph: Graph
    plan: ReducePlan
    """The best one for this graph."""
    seconds: float
    """What it promises for the vector asked about."""
    present_s: float
    """What the plan in force promises for it on the same graph."""


Event = (
    Linked | Unlinked | ProcessGone | Heard | Searched | FromWorker | WorkerGone | Tick | Replanned
)

# ---- actions: what the driver must do ------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """Send a message to a linked incarnation (dropped if the link is gone)."""

    to: Uid
    message: Message


class Connect(msgspec.Struct, frozen=True):
    """Hold a control connection to this member from now on; report Linked or Unlinked."""

    member: Member


class Hangup(msgspec.Struct, frozen=True):
    """Close every control connection to this incarnation after what is queued is sent."""

    uid: Uid
    reason: str


class Redial(msgspec.Struct, frozen=True):
    """A linked incarnation is silent: drop its connections and dial it anew.

    A path that comes back carries a new connection at once, an old one only when TCP's
    retransmission timer runs out, which has doubled again and again.
    """

    uid: Uid
    reason: str


class Tell(msgspec.Struct, frozen=True):
    """Tell this node's worker."""

    message: Local


class Level(enum.Enum):
    """How loud a log line is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


class Log(msgspec.Struct, frozen=True):
    """A line of the run's story."""

    level: Level
    text: str


class Quit(msgspec.Struct, frozen=True):
    """End the peer process once what is queued is sent."""

    reason: str


class Replan(msgspec.Struct, frozen=True):
    """Work out the best reduce plan for these links, aside; answer with Replanned if there is one.

    It may take a good while, so it must not hold up other events.  It may stay without an answer:
    then the lead asks again.
    """

    graph: Graph
    present: ReducePlan
    """The plan in force."""
    total_bytes: int
    """Length of the vector that is reduced."""


Action = Send | Connect | Hangup | Redial | Tell | Log | Quit | Replan
