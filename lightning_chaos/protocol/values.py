"""The value types that the whole house speaks of: members, views, operations."""

from __future__ import annotations

import itertools
from collections.abc import KeysView
from functools import cached_property
from typing import Annotated

import msgspec

from lightning_chaos.planning.values import ReducePlan
from lightning_chaos.protocol.ranges import MOST_IN_VIEW, Chunk, Count, Round

PROTOCOL_VERSION = 1

Uid = str
"""One incarnation of one node: ``name/incarnation`` (see :attr:`Member.uid`)."""
Uids = Annotated[tuple[Uid, ...], msgspec.Meta(max_length=MOST_IN_VIEW)]


Pair = tuple[Uid, Uid]
"""Two incarnations, the smaller uid first."""


def pair_of(a: Uid, b: Uid) -> Pair:
    """The pair of these two."""
    return (a, b) if a < b else (b, a)


class Past(msgspec.Struct, frozen=True, array_like=True):
    """What an incarnation brings of the run's past when it starts (design §4, lineage)."""

    generation: Round = -1
    """Of the checkpoint that it would go on from; -1 without one."""
    samples: Count = 0
    """Committed up to that checkpoint, in all generations that led there."""
    rounds: Count = 0
    """The same in rounds."""
    told: tuple[Round, Count] = (-1, 0)
    """Generation and rounds of the last round that its run logs tell of."""

    @property
    def lineage(self) -> tuple[int, int, int]:
        """Grows with what a state has seen: the larger one is the newer."""
        return self.generation, self.samples, self.rounds

    def place(self, uid: Uid) -> tuple[int, int, int, Uid]:
        """Of that incarnation among candidates: the smallest founds, so the newest checkpoint."""
        return -self.generation, -self.samples, -self.rounds, uid


class Member(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """One incarnation of a node.  A peer draws a new incarnation at each start."""

    node: str
    """Name of the node, the same for all incarnations."""
    incarnation: Count
    """Nanoseconds since 1970 at the start of the peer: later ones are larger."""
    host: str
    """Address others dial; with :attr:`port` the node's one inbound door."""
    port: int
    machine: str = ""
    """Names boot, machine and pid namespace: equal where one process can see the other's pid."""
    pid: Count = 0
    """Process id of the peer on :attr:`machine`."""
    past: Past = Past()
    """What it brought when it started."""

    @cached_property
    def uid(self) -> Uid:
        """Identity in views, ballots and frames."""
        return f"{self.node}/{self.incarnation:x}"

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"


Members = Annotated[tuple[Member, ...], msgspec.Meta(max_length=MOST_IN_VIEW)]


class Ballot(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Number of a proposal; a higher one supersedes a lower one."""

    counter: Count = 0
    proposer: Uid = ""


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """What a lineage brings when it meets others: from then on it is fixed towards them."""

    samples: Count
    """Samples committed by the rounds before the lead's present one, over all data epochs."""
    against: Annotated[tuple[str, ...], msgspec.Meta(max_length=MOST_IN_VIEW)]
    """Names of the lineages that had been met when it was made."""


class Lineage(msgspec.Struct, frozen=True, array_like=True):
    """Whose history a view continues: views of one lineage follow each other."""

    founder: Uid = ""
    """Who founded the run."""
    island: str = ""
    """``uid@epoch`` of who split off without a quorum (``quorum="any"``); '' for the run itself."""
    apart: Members = ()
    """Whom it went on without (``quorum="any"`` alone), the latest last: perhaps they do too."""
    claim: Claim | None = None
    """None until it has met another lineage; within a lineage claims only grow."""

    @property
    def name(self) -> str:
        """Tells lineages of one run apart."""
        return self.island or self.founder

    @property
    def story(self) -> str:
        """For people."""
        who, _, epoch = self.island.partition("@")
        if self.island:
            return f"the island of {who.rpartition('/')[0]}, split off in epoch {epoch}"
        return f"the run founded by {self.founder.rpartition('/')[0]}"


class View(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """An agreed membership: who is in, who learns, and how they reduce."""

    run: str
    generation: Count
    """Restarts of the run from a checkpoint so far."""
    epoch: Count
    """Grows with every view; never repeats."""
    members: Members
    """Oldest first: index = rank, ``members[0]`` is the lead and rank zero."""
    learners: Members
    """Newcomers that pull the state; they contribute nothing and count in no quorum."""
    switch: Round
    """First round that runs under this view."""
    plan: ReducePlan
    missing: tuple[Pair, ...] = ()
    """Pairs of members, or of a learner and a member, between which there is no link; in order."""
    lineage: Lineage = Lineage()

    @cached_property
    def plan_problem(self) -> str | None:
        """Why the plan does not serve the members, None if it does."""
        if len(self._ranks) < len(self.members):
            return "somebody is a member twice"
        return self.plan.check(self.uids, self.missing)

    @property
    def worth(self) -> tuple[int, int]:
        """Generation and samples claimed, -1 without a claim: what lineages are compared by."""
        claim = self.lineage.claim
        return self.generation, claim.samples if claim is not None else -1

    @property
    def sought(self) -> tuple[Member, ...]:
        """At whose addresses its members call now and then: another lineage may be there."""
        here = {m.node for m in (*self.members, *self.learners)}
        return tuple(m for m in self.lineage.apart if m.node not in here)

    def joins(self, a: Uid, b: Uid) -> bool:
        """There is a link between these two."""
        return pair_of(a, b) not in self.missing

    @cached_property
    def uids(self) -> tuple[Uid, ...]:
        """Identities of the members, oldest first."""
        return tuple([m.uid for m in self.members])

    @property
    def seated(self) -> KeysView[Uid]:
        """The same, as an ordered set."""
        return self._ranks.keys()

    @cached_property
    def everybody(self) -> KeysView[Uid]:
        """Identities of the members, oldest first, and of the learners: an ordered set."""
        return self._found.keys()

    def find(self, uid: Uid) -> Member | None:
        """The member or learner of that identity, if it is in the view."""
        return self._found.get(uid)

    def rank(self, uid: Uid) -> int | None:
        """Position among the members, None for a learner or stranger."""
        return self._ranks.get(uid)

    @cached_property
    def _found(self) -> dict[Uid, Member]:
        return {m.uid: m for m in (*self.members, *self.learners)}

    @cached_property
    def _ranks(self) -> dict[Uid, int]:
        return {uid: rank for rank, uid in enumerate(self.uids)}


class Host(msgspec.Struct, frozen=True, array_like=True):
    """How a node's machine is doing."""

    cpus: Count
    """Logical processors."""
    cpu_percent: Count
    """Of all of them together, in use since it was looked at before."""
    memory_bytes: Count
    memory_used_bytes: Count
    sent_bytes_per_s: Count
    """Over all network cards but loopback, since it was looked at before."""
    received_bytes_per_s: Count
    nic_mbit: Count
    """Nominal speed of the fastest card that is up, 0 if none says."""


class OpId(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Number of a collective operation: the k-th since the begin of a round."""

    round: Round
    k: Count

    def __str__(self) -> str:
        return f"{self.round}.{self.k}"


class Report(msgspec.Struct, frozen=True, array_like=True):
    """What a frozen worker holds (design §6); travels in the ACK of an unplanned change."""

    finished: OpId
    """Last operation of which this member holds every result."""
    keeps: bool
    """It still holds the results of :attr:`finished` and can pass them on."""
    current: OpId | None
    """The operation begun and not finished, if any."""
    held: tuple[Chunk, ...]
    """Chunks of :attr:`current` whose result it holds whole, ascending."""
    chunks: Chunk
    """Number of chunks of :attr:`current`."""
    contributors: Uids
    """Who contributed to the held chunks: the members under which the attempt ran."""
    begun_round: Round
    """Highest round whose batch this worker has fetched."""
    plan: int = 0
    """Mark of the plan by which :attr:`current` is cut and added up."""

    def __post_init__(self) -> None:
        """A decoder makes of this that the message is none."""
        held = self.held
        if held and (self.current is None or held[-1] >= self.chunks):
            where = f"of {self.chunks} in operation {self.current}"
            raise ValueError(f"a report of chunk {held[-1]} {where}, which does not have it")
        if any(a >= b for a, b in itertools.pairwise(held)):
            raise ValueError(f"a report whose chunks are not in order: {held}")


class Decision(msgspec.Struct, frozen=True, array_like=True):
    """What the frozen workers do next; travels in the COMMIT of an unplanned change."""

    finished: OpId
    """All members complete this operation first."""
    sources: Uids
    """Who still keeps its results, and passes them on; nobody if nobody is behind."""
    behind: Uids
    """Members that lack it."""
    held: dict[Chunk, Uid]
    """Chunks of the next operation whose results are kept, and from whom each is passed on."""
    contributors: Uids
    """Whose contributions the kept chunks hold; empty when all is done again."""
    data_from: Count
    """First round whose samples are shared out under the new view."""


class Proposal(msgspec.Struct, frozen=True, array_like=True):
    """A view that a member asks the others to agree to."""

    ballot: Ballot
    base: Count
    """Epoch of the view it replaces."""
    view: View
    planned: bool
    """Planned changes switch between two rounds; unplanned ones freeze the workers."""
    reason: str
    """For people: why the view changes."""
