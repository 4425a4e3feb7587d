"""What the lead does: it proposes views and commits them (design §4, view change).

The lead is a role: the oldest member that is not lost.  Unplanned changes (somebody is lost, or
frames were) go before planned ones (join, leave); planned ones run one at a time and take
everything along that has been asked for by then.
"""

from __future__ import annotations

from collections.abc import Mapping

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.acceptor import Acceptor
from lightning_chaos.protocol.change import Change
from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.flush import Unrecoverable, decide
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
from lightning_chaos.protocol.values import Ballot, Decision, Member, Proposal, Uid, View
from lightning_chaos.protocol.wishes import Wishes, node_of

Steps = list[tuple[Uid, Message]]


class Lead:
    """The one proposal of this member that is open, and what calls for the next.

    Args:
        me: this member.
        timeout_s: longest silence tolerated, seconds.
    """

    def __init__(self, me: Uid, timeout_s: float) -> None:
        self.wishes = Wishes(me, timeout_s)
        """What nodes have asked for."""
        self._me = me
        self._timeout_s = timeout_s
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
        self._not_before = float("-inf")

    def want_flush(self, reason: str) -> None:
        """Frames were lost on a link that works again."""
        self._flush = self._flush or reason

    def installed(self, view: View) -> None:
        """A view is installed: what it settles is settled."""
        self.wishes.installed(view)
        self._change, self._need_since, self._flush = None, None, ""
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
        linked: Mapping[Uid, Member],
    ) -> Steps:
        """Messages to send now, to oneself too; empty when there is nothing to do but wait."""
        self._counter = max(self._counter, acceptor.promised.counter)
        lost = {**evidence.lost(now, view.uids), **self._expelled}
        urgent = self._urgent(now, lost, acceptor)
        if not urgent:
            self._need_since = None
        elif self._need_since is None:
            self._need_since = now
        turn = self._my_turn(now, view, lost, evidence)
        if turn is None or (turn > 0 and not urgent):
            self._change = None
            return []
        if self._change is not None and acceptor.promised > self._change.proposal.ballot:
            self._give_way(now)
        if self._change is not None:
            steps = self._advance(now, view, urgent, lost, evidence)
            if steps or self._change is not None:
                return steps
        if now < self._not_before:
            return []
        if urgent:
            return self._propose_unplanned(now, view, urgent, lost, linked)
        gone = {m.uid for m in view.learners if m.uid not in linked or m.uid in evidence.dead}
        return self._propose_planned(now, view, gone, permits, linked)

    def _urgent(self, now: float, lost: Mapping[Uid, str], acceptor: Acceptor) -> str:
        """Why an unplanned change is needed, '' if none is."""
        if lost:
            return "; ".join(f"{node_of(uid)}: {why}" for uid, why in lost.items())
        if self._flush:
            return self._flush
        mine = self._change is not None and not self._change.proposal.planned
        if acceptor.frozen and (mine or acceptor.promised.proposer == self._me):
            return "nobody is lost after all"
        if acceptor.since is not None and now - acceptor.since > 3 * self._timeout_s:
            return "an earlier change was left undecided"
        return ""

    def _my_turn(
        self, now: float, view: View, lost: Mapping[Uid, str], evidence: Evidence
    ) -> int | None:
        """0: this member leads; n: it is n-th in line and has waited long enough; else None."""
        away = set(evidence.unreachable(view.uids))
        line = [uid for uid in view.uids if uid not in lost and uid not in away]
        if self._me not in line:
            return None
        place = line.index(self._me)
        since = self._need_since
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
        evidence: Evidence,
    ) -> Steps:
        """Carry the open change on; sets it to None when a new proposal must take its place."""
        change = self._change
        assert change is not None
        proposal = change.proposal
        wanted = tuple(m for m in view.members if m.uid not in lost)
        outdated = proposal.base != view.epoch or (
            bool(urgent) if proposal.planned else proposal.view.members != wanted
        )
        if outdated:
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
        if not agreed:
            self.waiting = reason
            return self._remind(now, change)
        decision: Decision | None = None
        if not proposal.planned:
            reports = {uid: a.report for uid, a in change.acks.items() if a.report is not None}
            try:
                decision = decide(reports, proposal.view.uids)
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

    # ---- a new change ----------------------------------------------------------------------

    def _propose_unplanned(
        self,
        now: float,
        view: View,
        reason: str,
        lost: Mapping[Uid, str],
        linked: Mapping[Uid, Member],
    ) -> Steps:
        members = tuple(m for m in view.members if m.uid not in lost)
        learners = tuple(m for m in view.learners if m.uid in linked)
        new = View(
            view.run,
            view.generation,
            view.epoch + 1,
            members,
            learners,
            view.switch,
            mesh_plan([m.uid for m in members]),
        )
        proposal = Proposal(Ballot(), view.epoch, new, False, reason)
        return self._propose(now, proposal, (), view.uids)

    def _propose_planned(
        self,
        now: float,
        view: View,
        gone: set[Uid],
        permits: Permits,
        linked: Mapping[Uid, Member],
    ) -> Steps:
        refusals, joining = self.wishes.admissible(now, view, linked, self.fingerprint)
        if refusals:
            return list(refusals)
        margin = 1 if permits.begun >= 0 else 0
        # Never below an earlier view's: those that wait for their round are taken in order.
        switch = max(view.switch, permits.granted + 1 + margin, self._least_switch)
        plan = self.wishes.plan(view, joining, gone, linked, switch)
        return self._propose(now, plan.draft, (), plan.asked) if plan else []

    def _propose(
        self, now: float, draft: Proposal, carried: tuple[Proposal, ...], asked: tuple[Uid, ...]
    ) -> Steps:
        """Open a change with a fresh ballot, and an epoch above everything carried."""
        self._counter += 1
        new = draft.view
        epoch = max([draft.base, *(p.view.epoch for p in carried)]) + 1
        view = View(new.run, new.generation, epoch, new.members, new.learners, new.switch, new.plan)
        ballot = Ballot(self._counter, self._me)
        proposal = Proposal(ballot, draft.base, view, draft.planned, draft.reason)
        self._change = Change(proposal, carried, asked, now + self._timeout_s)
        self.waiting = ""
        prepare = Prepare(proposal, carried)
        others = [uid for uid in asked if uid != self._me]
        return [(uid, prepare) for uid in (*others, self._me)]
