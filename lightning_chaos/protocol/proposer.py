"""The one proposal of a member that is open: whom it asks, what their answers mean (design §4)."""

from __future__ import annotations

import msgspec

from lightning_chaos.protocol.change import Change
from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.flush import Unrecoverable, decide
from lightning_chaos.protocol.islands import island_of
from lightning_chaos.protocol.messages import Abort, Ack, Commit, Message, Nack, Prepare
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Ballot, Decision, Proposal, Uid, View
from lightning_chaos.protocol.wishes import node_of

SPLIT_AFTER = 1
"""How long a side is without a quorum before it goes on alone, in timeouts.

Less than after what the next in line takes the lead.
"""

Steps = list[tuple[Uid, Message]]


class Proposer:
    """Opens a change, carries it on, commits it or lets it go.

    Args:
        me: this member.
        timeouts: longest silence tolerated.
        alone: split off where there is no quorum.
    """

    def __init__(self, me: Uid, timeouts: Timeouts, *, alone: bool) -> None:
        self._me = me
        self._timeouts = timeouts
        self._alone = alone
        self.change: Change | None = None
        """What is open."""
        self.waiting = ""
        """What it waits for, for people."""
        self.resigns = False
        """This member lacks what nobody can give it any more: it must come back as a newcomer."""
        self.expelled: dict[Uid, str] = {}
        """Members that nobody can help to catch up, and why."""
        self.least_switch = 0
        """First round that a planned change can name: of those before, some are permitted."""
        self._counter = 0
        self._lacks_since: float | None = None
        self._not_before = float("-inf")

    def installed(self) -> None:
        """A view is installed: nothing is open any more."""
        self.change, self._lacks_since = None, None
        self.expelled.clear()
        self.least_switch, self.waiting = 0, ""

    def promised(self, ballot: Ballot) -> None:
        """This member agrees to no lower ballot any more: its next one is above."""
        self._counter = max(self._counter, ballot.counter)

    def settled(self) -> None:
        """No unplanned change is needed any more."""
        self._lacks_since = None

    # ---- answers ---------------------------------------------------------------------------

    def on_ack(self, sender: Uid, ack: Ack) -> None:
        """A member agrees; to an unplanned change only with the report that it is decided by."""
        change = self.change
        if change is None or ack.ballot != change.proposal.ballot:
            return
        if change.proposal.planned or ack.report is not None:
            change.acks[sender] = ack
            change.nacks.pop(sender, None)

    def on_nack(self, sender: Uid, nack: Nack) -> None:
        """A member does not agree."""
        self.promised(nack.promised)
        if self.change is not None and nack.ballot == self.change.proposal.ballot:
            self.change.nacks[sender] = nack

    # ---- the open change -------------------------------------------------------------------

    def may_propose(self, now: float) -> bool:
        """It has not just given way to somebody else."""
        return now >= self._not_before

    def carry_on(self, now: float, view: View, evidence: Evidence) -> Steps:
        """What the answers so far demand; :attr:`change` is None if another must take its place."""
        change = self.change
        assert change is not None
        if change.nacks and (steps := self._on_refusals(now, change)) is not None:
            return steps
        if not change.missing:
            return self._close(now, change, view, evidence)
        if now > change.deadline:
            names = ", ".join(node_of(uid) for uid in change.missing)
            self.waiting = f"{names} to agree to epoch {change.proposal.view.epoch}"
        return self._remind(now, change)

    def propose(
        self, now: float, draft: Proposal, carried: tuple[Proposal, ...], asked: tuple[Uid, ...]
    ) -> Steps:
        """Open a change with a fresh ballot, and an epoch above everything carried."""
        self._counter += 1
        new = draft.view
        epoch = max([draft.base, *(p.view.epoch for p in carried)]) + 1
        view = msgspec.structs.replace(new, epoch=epoch)
        ballot = Ballot(self._counter, self._me)
        proposal = Proposal(ballot, draft.base, view, draft.planned, draft.reason)
        self.change = Change(proposal, carried, asked, now + self._timeouts.longest_s)
        self.waiting = ""
        prepare = Prepare(proposal, carried)
        others = [uid for uid in asked if uid != self._me]
        return [(uid, prepare) for uid in (*others, self._me)]

    def _on_refusals(self, now: float, change: Change) -> Steps | None:
        proposal = change.proposal
        if any(nack.final for nack in change.nacks.values()):
            self.waiting = next(n.reason for n in change.nacks.values() if n.final)
        higher = any(n.promised > proposal.ballot for n in change.nacks.values())
        granted = max(n.granted for n in change.nacks.values())
        late = proposal.planned and granted >= proposal.view.switch
        if not higher and not late:
            return None
        self.change = None
        if late:
            self.least_switch = granted + 2
            return self._abort(change)
        self.give_way(now)
        return []

    def give_way(self, now: float) -> None:
        """Somebody else proposes with a higher ballot: this one's proposal ends here for good.

        Whoever has this member's ACK may rely on that.
        """
        self.change = None
        self._not_before = now + self._timeouts.longest_s / 2

    def _abort(self, change: Change) -> Steps:
        return [(uid, Abort(change.proposal.ballot)) for uid in change.asked]

    def _remind(self, now: float, change: Change) -> Steps:
        """Ask those again who have not agreed, every timeout."""
        if now <= change.deadline:
            return []
        change.deadline = now + self._timeouts.longest_s
        prepare = Prepare(change.proposal, change.carried)
        return [(uid, prepare) for uid in change.asked if uid not in change.acks]

    def _close(self, now: float, change: Change, view: View, evidence: Evidence) -> Steps:
        """Everybody needed has agreed: commit if that binds the last view."""
        proposal = change.proposal
        uncertain = change.uncertain(self._me, view)
        if any(p not in change.carried for p in uncertain):
            holders = (uid for p in uncertain for uid in p.view.uids)
            asked = tuple(dict.fromkeys((*change.asked, *holders)))
            return self.propose(now, proposal, uncertain, asked)
        agreed, reason = change.verdict(view, uncertain, evidence.dead)
        if not agreed and proposal.view.lineage.name == view.lineage.name:
            self.waiting = reason
            return self._split(now, change, view) or self._remind(now, change)
        decision: Decision | None = None
        if not proposal.planned:
            reports = {uid: a.report for uid, a in change.acks.items() if a.report is not None}
            try:
                decision = decide(reports, proposal.view)
            except Unrecoverable as error:
                self.expelled.update(dict.fromkeys(error.uids, "it is too far behind"))
                self.resigns = self._me in error.uids
                self.change = None
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
        if not self._alone or now - self._lacks_since < SPLIT_AFTER * self._timeouts.longest_s:
            return []
        alone = island_of(change.proposal.view, self._me)
        reason = f"no quorum: an island of its own ({change.proposal.reason})"
        draft = Proposal(Ballot(), view.epoch, alone, False, reason)
        return self.propose(now, draft, change.carried, change.asked)
