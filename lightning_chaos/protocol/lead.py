"""What the lead does: it proposes views and commits them (design §4, view change).

The lead is a role: the oldest member that is not lost.  Unplanned changes (somebody is lost, or
frames were) go before planned ones (join, leave); planned ones run one at a time and take
everything along that has been asked for by then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.acceptor import Acceptor
from lightning_chaos.protocol.change import Change
from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.flush import Unrecoverable, decide
from lightning_chaos.protocol.islands import Islands, claimed, island_of, without
from lightning_chaos.protocol.linkage import Linkage, joined, told
from lightning_chaos.protocol.messages import (
    Abort,
    Ack,
    Commit,
    Fingerprint,
    Message,
    Nack,
    Prepare,
)
from lightning_chaos.protocol.permits import Permits
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import (
    Ballot,
    Decision,
    Lineage,
    Member,
    Pair,
    Proposal,
    Uid,
    View,
    pair_of,
)
from lightning_chaos.protocol.wishes import Wishes, node_of

SPLIT_AFTER = 1
"""How long a side is without a quorum before it goes on alone, in timeouts.

Less than after what the next in line takes the lead.
"""

Steps = list[tuple[Uid, Message]]


class Lead:
    """The one proposal of this member that is open, and what calls for the next.

    Args:
        me: this member.
        timeouts: longest silence tolerated.
        alone: split off where there is no quorum.
    """

    def __init__(self, me: Uid, timeouts: Timeouts, *, alone: bool) -> None:
        self.wishes = Wishes(me, timeouts)
        """What nodes have asked for."""
        self.linkage = Linkage(timeouts)
        """Which links are given up and taken back."""
        self._me = me
        self._timeouts = timeouts
        self._alone = alone
        self.fingerprint: Fingerprint | None = None
        """Settings of this node's worker, to compare newcomers with."""
        self.waiting = ""
        """What an open change waits for, for people."""
        self.resigns = False
        """This member lacks what nobody can give it any more: it must come back as a newcomer."""
        self._flush = ""
        self._expelled: dict[Uid, str] = {}
        self._change: Change | None = None
        self._counter = 0
        self._least_switch = 0
        self._need_since: float | None = None
        self._lacks_since: float | None = None
        self._not_before = float("-inf")

    @property
    def _timeout_s(self) -> float:
        return self._timeouts.longest_s

    def want_flush(self, reason: str) -> None:
        """Frames were lost on a link that works again."""
        self._flush = self._flush or reason

    def installed(self, now: float, view: View, old: View) -> None:
        """A view is installed: what it settles is settled."""
        self.wishes.installed(view)
        self.linkage.installed(now, view, old)
        self._change, self._need_since, self._flush = None, None, ""
        self._lacks_since = None
        self._expelled.clear()
        self._least_switch, self.waiting = 0, ""

    # ---- answers ---------------------------------------------------------------------------

    def on_ack(self, sender: Uid, ack: Ack) -> None:
        """A member agrees."""
        if self._change is not None and ack.ballot == self._change.proposal.ballot:
            self._change.acks[sender] = ack
            self._change.nacks.pop(sender, None)

    def on_nack(self, sender: Uid, nack: Nack) -> None:
        """A member does not agree."""
        self._counter = max(self._counter, nack.promised.counter)
        if self._change is not None and nack.ballot == self._change.proposal.ballot:
            self._change.nacks[sender] = nack

    # ---- what to do now --------------------------------------------------------------------

    def next_steps(
        self,
        now: float,
        view: View,
        *,
        evidence: Evidence,
        acceptor: Acceptor,
        permits: Permits,
        reaches: Callable[[Uid], bool],
        islands: Islands,
        samples: int | None,
    ) -> Steps:
        """Messages to send now, to oneself too; empty when there is nothing to do but wait."""
        self._counter = max(self._counter, acceptor.promised.counter)
        lost = {**evidence.lost(now, view.seated, view.missing), **self._expelled}
        lost.update(islands.elsewhere(view))
        self.linkage.watch(now, view, evidence)
        cut = self.linkage.cut(now, view, evidence)
        urgent = self._urgent(now, lost, told(cut, view.members, ()), acceptor)
        if not urgent:
            self._need_since = self._lacks_since = None
        elif self._need_since is None:
            self._need_since = now
        turn = self._my_turn(now, view, lost)
        if turn is None or (turn > 0 and not urgent):
            self._change = None
            return []
        if self._change is not None and acceptor.promised > self._change.proposal.ballot:
            self._give_way(now)
        if self._change is not None:
            steps = self._advance(now, view, urgent, lost, cut, evidence)
            if steps or self._change is not None:
                return steps
        if now < self._not_before:
            return []
        learners = {m.uid for m in view.learners if reaches(m.uid) and m.uid not in evidence.dead}
        if urgent:
            new = self._without(view, lost, cut, learners, evidence)
            return self._propose(
                now, Proposal(Ballot(), view.epoch, new, False, urgent), (), view.uids
            )
        gone = {m.uid for m in view.learners} - learners
        lineage, unmet = view.lineage, islands.unmet(view)
        if unmet and samples is not None:
            lineage = claimed(lineage, samples, unmet)
        return self._propose_planned(now, view, gone, cut, permits, reaches, evidence, lineage)

    def _urgent(
        self, now: float, lost: Mapping[Uid, str], cut: Collection[Pair], acceptor: Acceptor
    ) -> str:
        """Why an unplanned change is needed, '' if none is."""
        reasons = [f"{node_of(uid)}: {why}" for uid, why in lost.items()]
        for a, b in cut:
            if a not in lost and b not in lost:
                reasons.append(f"the link between {node_of(a)} and {node_of(b)} is lost")
        if reasons:
            return "; ".join(reasons)
        if self._flush:
            return self._flush
        mine = self._change is not None and not self._change.proposal.planned
        if acceptor.frozen and (mine or acceptor.promised.proposer == self._me):
            return "nobody is lost after all"
        if acceptor.since is not None and now - acceptor.since > 3 * self._timeout_s:
            return "an earlier change was left undecided"
        return ""

    def _my_turn(self, now: float, view: View, lost: Mapping[Uid, str]) -> int | None:
        """0: this member leads; n: it is n-th in line and has waited long enough; else None."""
        rank, since = view.rank(self._me), self._need_since
        if rank is None or self._me in lost:
            return None
        place = sum(uid not in lost for uid in view.uids[:rank]) if lost else rank
        if place == 0:
            return 0
        if since is not None and now - since > place * 2 * self._timeout_s:
            return place
        return None

    # ---- an open change --------------------------------------------------------------------

    def _advance(
        self,
        now: float,
        view: View,
        urgent: str,
        lost: Mapping[Uid, str],
        cut: Collection[Pair],
        evidence: Evidence,
    ) -> Steps:
        """Carry the open change on; sets it to None when a new proposal must take its place."""
        change = self._change
        assert change is not None
        proposal = change.proposal
        if proposal.planned:
            outdated = bool(urgent) or self._counts_on_lost(proposal.view, now, evidence)
        else:
            new = proposal.view
            wanted = self._left(view, lost, cut, {m.uid for m in new.learners}, evidence)
            outdated = (new.members, new.learners, new.missing) != wanted
        if outdated or proposal.base != view.epoch:
            self._change = None
            return []
        if change.nacks and (steps := self._on_refusals(now, change)) is not None:
            return steps
        if not change.missing:
            return self._close(now, change, view, evidence)
        if now > change.deadline:
            names = ", ".join(node_of(uid) for uid in change.missing)
            self.waiting = f"{names} to agree to epoch {proposal.view.epoch}"
        return self._remind(now, change)

    def _on_refusals(self, now: float, change: Change) -> Steps | None:
        proposal = change.proposal
        if any(nack.final for nack in change.nacks.values()):
            self.waiting = next(n.reason for n in change.nacks.values() if n.final)
        higher = any(n.promised > proposal.ballot for n in change.nacks.values())
        granted = max(n.granted for n in change.nacks.values())
        late = proposal.planned and granted >= proposal.view.switch
        if not higher and not late:
            return None
        self._change = None
        if late:
            self._least_switch = granted + 2
            return self._abort(change)
        self._give_way(now)
        return []

    def _give_way(self, now: float) -> None:
        """Somebody else proposes with a higher ballot: this one's proposal ends here for good.

        Whoever has this member's ACK may rely on that.
        """
        self._change = None
        self._not_before = now + self._timeout_s / 2

    def _abort(self, change: Change) -> Steps:
        return [(uid, Abort(change.proposal.ballot)) for uid in change.asked]

    def _remind(self, now: float, change: Change) -> Steps:
        """Ask those again who have not agreed, every timeout."""
        if now <= change.deadline:
            return []
        change.deadline = now + self._timeout_s
        prepare = Prepare(change.proposal, change.carried)
        return [(uid, prepare) for uid in change.asked if uid not in change.acks]

    def _close(self, now: float, change: Change, view: View, evidence: Evidence) -> Steps:
        """Everybody needed has agreed: commit if that binds the last view."""
        proposal = change.proposal
        uncertain = change.uncertain(self._me)
        if any(p not in change.carried for p in uncertain):
            holders = (uid for p in uncertain for uid in p.view.uids)
            asked = tuple(dict.fromkeys((*change.asked, *holders)))
            return self._propose(now, proposal, uncertain, asked)
        agreed, reason = change.verdict(view, evidence.dead)
        if not agreed and proposal.view.lineage.name == view.lineage.name:
            self.waiting = reason
            return self._split(now, change, view) or self._remind(now, change)
        decision: Decision | None = None
        if not proposal.planned:
            reports = {uid: a.report for uid, a in change.acks.items() if a.report is not None}
            try:
                decision = decide(reports, proposal.view)
            except Unrecoverable as error:
                self._expelled.update(dict.fromkeys(error.uids, "it is too far behind"))
                self.resigns = self._me in error.uids
                self._change = None
                return []
        commit = Commit(proposal, decision)
        hear = {m.uid: None for m in (*proposal.view.members, *proposal.view.learners)}
        hear.update(dict.fromkeys(change.asked))
        others = [uid for uid in hear if uid != self._me]
        return [(uid, commit) for uid in (*others, self._me)]

    def _split(self, now: float, change: Change, view: View) -> Steps:
        """Propose to go on alone, if that is wanted and no quorum has come for a while."""
        if self._lacks_since is None:
            self._lacks_since = now
        if not self._alone or now - self._lacks_since < SPLIT_AFTER * self._timeout_s:
            return []
        alone = island_of(change.proposal.view, self._me)
        reason = f"no quorum: an island of its own ({change.proposal.reason})"
        draft = Proposal(Ballot(), view.epoch, alone, False, reason)
        return self._propose(now, draft, change.carried, change.asked)

    # ---- a new change ----------------------------------------------------------------------

    def _without(
        self,
        view: View,
        lost: Mapping[Uid, str],
        cut: Collection[Pair],
        learners: Collection[Uid],
        evidence: Evidence,
    ) -> View:
        """The view that goes on without those lost, over the links that are left."""
        members, learning, missing = self._left(view, lost, cut, learners, evidence)
        plan = mesh_plan([m.uid for m in members], missing)
        epoch = view.epoch + 1
        lineage = view.lineage
        if self._alone:
            left = [m for m in (*view.sought, *view.members) if m not in members]
            lineage = without(lineage, left)
        return View(
            *(view.run, view.generation, epoch, members, learning, view.switch, plan, missing),
            lineage=lineage,
        )

    def _left(
        self,
        view: View,
        lost: Mapping[Uid, str],
        cut: Collection[Pair],
        learners: Collection[Uid],
        evidence: Evidence,
    ) -> tuple[tuple[Member, ...], tuple[Member, ...], tuple[Pair, ...]]:
        """Members and learners that are left, and the links that are not."""
        members = tuple(m for m in view.members if m.uid not in lost) if lost else view.members
        learning = tuple(m for m in view.learners if m.uid in learners)
        gone = {*view.missing, *cut}
        if joined(self._me, members, gone) != members:
            # Not even a link that may fail again can be done without.
            gone = {p for p in view.missing if evidence.denied(p)} | {*cut}
            members = joined(self._me, members, gone)
        return members, learning, told(gone, members, learning)

    @staticmethod
    def _counts_on_lost(view: View, now: float, evidence: Evidence) -> bool:
        """A link that it takes back has been lost again."""
        lost = evidence.confirmed(now, view.seated)
        return not lost.issubset(view.missing)

    def _propose_planned(
        self,
        now: float,
        view: View,
        gone: set[Uid],
        cut: Collection[Pair],
        permits: Permits,
        reaches: Callable[[Uid], bool],
        evidence: Evidence,
        lineage: Lineage,
    ) -> Steps:
        refusals, joining = self.wishes.admissible(now, view, reaches, self.fingerprint)
        if refusals:
            return list(refusals)
        margin = 1 if permits.begun >= 0 else 0
        # Never below an earlier view's: those that wait for their round are taken in order.
        switch = max(view.switch, permits.granted + 1 + margin, self._least_switch)
        kept = set(view.missing) - self.linkage.back(now, view, evidence)
        never = {
            pair_of(m.uid, uid) for m in joining for uid in view.uids if evidence.says(m.uid, uid)
        }
        missing = kept | never | set(cut)
        plan = self.wishes.plan(view, joining, gone, reaches, switch, missing, lineage)
        return self._propose(now, plan.draft, (), plan.asked) if plan else []

    def _propose(
        self, now: float, draft: Proposal, carried: tuple[Proposal, ...], asked: tuple[Uid, ...]
    ) -> Steps:
        """Open a change with a fresh ballot, and an epoch above everything carried."""
        self._counter += 1
        new = draft.view
        epoch = max([draft.base, *(p.view.epoch for p in carried)]) + 1
        view = msgspec.structs.replace(new, epoch=epoch)
        ballot = Ballot(self._counter, self._me)
        proposal = Proposal(ballot, draft.base, view, draft.planned, draft.reason)
        self._change = Change(proposal, carried, asked, now + self._timeout_s)
        self.waiting = ""
        prepare = Prepare(proposal, carried)
        others = [uid for uid in asked if uid != self._me]
        return [(uid, prepare) for uid in (*others, self._me)]
