"""What nodes have asked for, and the planned view that would grant it.

Every member hears every request and keeps it, so whoever leads next can act on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from lightning_chaos.protocol.events import Replanned
from lightning_chaos.protocol.linkage import joined, told
from lightning_chaos.protocol.messages import Fingerprint, JoinRequest, Refuse
from lightning_chaos.protocol.replanning import plan_after
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import (
    Ballot,
    Lineage,
    Member,
    Pair,
    Proposal,
    Uid,
    View,
)

FORGOTTEN = 10
"""A newcomer asks every timeout; one that has not for so many is gone."""


@dataclass(frozen=True, slots=True)
class _Join:
    """What a newcomer asks for."""

    request: JoinRequest
    since: float
    """When it was heard first."""
    last: float
    """When it was heard last."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned change worth proposing."""

    draft: Proposal
    """Without a ballot."""
    asked: tuple[Uid, ...]
    """Whose ACK it needs."""


class Wishes:
    """Joins, leaves and learners that are ready, until a view grants them.

    Args:
        me: this member.
        timeouts: longest silence tolerated.
    """

    def __init__(self, me: Uid, timeouts: Timeouts) -> None:
        self._me = me
        self._timeouts = timeouts
        self._joins: dict[Uid, _Join] = {}
        self._leaves: set[Uid] = set()
        self._ready: dict[Uid, int] = {}

    def join(self, now: float, request: JoinRequest) -> None:
        """A newcomer asks for a seat."""
        before = self._joins.get(request.member.uid)
        since = before.since if before is not None else now
        self._joins[request.member.uid] = _Join(request, since, now)

    def learner_ready(self, uid: Uid, round_: int) -> None:
        """A learner holds the state at the begin of that round."""
        self._ready[uid] = round_

    def leave(self, uid: Uid) -> None:
        """A member asks to be planned out."""
        self._leaves.add(uid)

    def forget_newcomer(self, uid: Uid) -> None:
        """Its link is gone: it will ask again."""
        self._joins.pop(uid, None)
        self._ready.pop(uid, None)

    def installed(self, now: float, view: View) -> None:
        """Drop what this view grants, or has made void, and what nobody asks for any more."""
        learners = {m.uid for m in view.learners}
        self._leaves &= view.seated
        self._ready = {u: r for u, r in self._ready.items() if u in learners}
        self._joins = {
            uid: join
            for uid, join in self._joins.items()
            if view.find(uid) is None and now - join.last < FORGOTTEN * self._timeouts.longest_s
        }

    def admissible(
        self, now: float, view: View, reaches: Callable[[Uid], bool], ours: Fingerprint | None
    ) -> tuple[list[tuple[Uid, Refuse]], tuple[Member, ...]]:
        """Refusals to send, and newcomers that may start to learn now.

        Args:
            now: seconds.
            view: installed; while somebody learns, nobody else may start.
            reaches: whether that one can be reached.
            ours: settings of this node's worker, None while it is not ready.
        """
        if ours is None or view.learners:
            return [], ()
        refusals: list[tuple[Uid, Refuse]] = []
        joining: list[Member] = []
        for uid, join in list(self._joins.items()):
            if not reaches(uid):
                continue
            member = join.request.member
            problem = compare(ours, join.request.fingerprint)
            namesake = next((m for m in view.members if m.node == member.node), None)
            if problem is not None:
                del self._joins[uid]
                refusals.append((uid, problem))
            elif namesake is None:
                joining.append(member)
            elif now - join.since > 3 * self._timeouts.longest_s and reaches(namesake.uid):
                del self._joins[uid]
                text = f"a node named {namesake.node} is in the run; choose another CHAOS_NODE"
                refusals.append((uid, Refuse(text)))
        return refusals, tuple(joining)

    def plan(
        self,
        view: View,
        joining: tuple[Member, ...],
        gone: Collection[Uid],
        reaches: Callable[[Uid], bool],
        switch: int,
        missing: Collection[Pair],
        lineage: Lineage,
        better: Replanned | None,
    ) -> Plan | None:
        """The view that grants all that can be granted now, None if nothing is wanted.

        Members that only a leaver joined with the others are left out.

        Args:
            view: installed.
            joining: newcomers that may start to learn.
            gone: learners that are lost.
            reaches: whether that one can be reached.
            switch: its first round; learners in the view have been told theirs.
            missing: links that there will not be; others may be named.
            lineage: of the view, perhaps with a new claim.
            better: a plan for the members and links as they are, if one has proved better.
        """
        leaving = self._leaves & view.seated
        if len(leaving) == len(view.members):
            leaving = leaving - {self._me}  # alone at last, its worker just goes
        seated = tuple(
            m for m in view.learners if self._ready.get(m.uid) == view.switch and reaches(m.uid)
        )
        claims = lineage != view.lineage
        asked_for = leaving or seated or joining or gone or claims or better
        if not asked_for and set(missing) == set(view.missing):
            return None
        learners = tuple(m for m in view.learners if m not in seated and m.uid not in gone)
        learners = (*learners, *joining)
        members = (*(m for m in view.members if m.uid not in leaving), *seated)
        members = joined(members[0].uid, members, missing)
        pairs = told(missing, members, learners)
        links = _links(view.missing, pairs, members, learners)
        if not (asked_for or links):
            return None
        uids = tuple(m.uid for m in members)
        reduce_plan = plan_after(view, uids, pairs)
        if better is not None and uids == view.uids and set(pairs) == set(view.missing):
            reduce_plan = better.plan
        new = View(
            view.run,
            view.generation,
            view.epoch + 1,
            members,
            learners,
            view.switch if view.learners else switch,
            reduce_plan,
            pairs,
            lineage,
        )
        parts = [*_story(leaving, seated, joining, gone), *links]
        if claims and lineage.claim is not None:
            parts.append(f"claims {lineage.claim.samples} samples")
        if better is not None and new.plan == better.plan:
            gain = f"{better.present_s * 1e3:.0f} ms become {better.seconds * 1e3:.0f} ms"
            parts.append(f"a better plan for the links as measured: {gain}")
        reason = ", ".join(parts)
        asked = tuple(dict.fromkeys((*view.uids, *new.uids)))
        return Plan(Proposal(Ballot(), view.epoch, new, True, reason), asked)


def compare(ours: Fingerprint, theirs: Fingerprint) -> Refuse | None:
    """The refusal of a newcomer whose settings differ, None if they agree."""
    other = dict(theirs)
    for name, value in ours:
        if other.get(name) != value:
            found = other.get(name, "nothing of that name")
            text = f"{name} differs: the run has {value}, this node has {found}"
            return Refuse(text, name)
    names = {name for name, _ in ours}
    for name, _ in theirs:
        if name not in names:
            return Refuse(f"{name} differs: the run has nothing of that name", name)
    return None


def node_of(uid: Uid) -> str:
    """The node's name, for people."""
    return uid.rpartition("/")[0]


def _story(
    leaving: Collection[Uid],
    seated: tuple[Member, ...],
    joining: tuple[Member, ...],
    gone: Collection[Uid],
) -> list[str]:
    parts = [f"{node_of(uid)} leaves" for uid in sorted(leaving)]
    parts += [f"{m.node} joins" for m in seated]
    parts += [f"{m.node} starts to learn" for m in joining]
    parts += [f"{node_of(uid)} stopped learning" for uid in sorted(gone)]
    return parts


def _links(
    before: Collection[Pair],
    pairs: Collection[Pair],
    members: tuple[Member, ...],
    learners: tuple[Member, ...],
) -> list[str]:
    """Links that come back or go, between those who are here."""
    here = {m.uid for m in (*members, *learners)}
    back = sorted(p for p in set(before) - set(pairs) if here.issuperset(p))
    lost = sorted(p for p in set(pairs) - set(before) if here.issuperset(p))
    parts = [f"the link between {node_of(a)} and {node_of(b)} works again" for a, b in back]
    return parts + [f"the link between {node_of(a)} and {node_of(b)} is lost" for a, b in lost]
