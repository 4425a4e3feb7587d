"""What the lead does: it sees what the next view is needed for and proposes it (design §4).

The lead is a role: the oldest member that is not lost, in the part that stays if lost links split
the members (:mod:`parts`).  Unplanned changes (somebody is lost, or frames were) go before planned
ones (join, leave); planned ones run one at a time and take everything along that has been asked
for by then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set

from lightning_chaos.protocol.acceptor import Acceptor
from lightning_chaos.protocol.drafts import Drafts
from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.islands import Islands, claimed
from lightning_chaos.protocol.linkage import told
from lightning_chaos.protocol.parts import parts_of
from lightning_chaos.protocol.permits import Permits
from lightning_chaos.protocol.proposer import Proposer, Steps
from lightning_chaos.protocol.reunion import Reunion
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Ballot, Pair, Proposal, Uid, View
from lightning_chaos.protocol.wishes import Plan, node_of


class Lead:
    """What calls for the next view, and whose turn it is to propose it.

    Args:
        me: this member.
        timeouts: longest silence tolerated.
        alone: split off where there is no quorum.
    """

    def __init__(self, me: Uid, timeouts: Timeouts, *, alone: bool) -> None:
        self.drafts = Drafts(me, timeouts, alone=alone)
        """Views that could come next."""
        self.proposer = Proposer(me, timeouts, alone=alone)
        """The proposal that is open."""
        self._me = me
        self._timeouts = timeouts
        self._flush = ""
        self._need_since: float | None = None
        self._reunion = Reunion(timeouts)

    def want_flush(self, reason: str) -> None:
        """Frames were lost on a link that works again."""
        self._flush = self._flush or reason

    def installed(self, now: float, view: View, old: View) -> None:
        """A view is installed: what it settles is settled."""
        self.drafts.installed(now, view, old)
        self.proposer.installed()
        self._reunion.installed(view)
        self._need_since, self._flush = None, ""

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
        proposer = self.proposer
        proposer.promised(acceptor.promised)
        apart, elsewhere = evidence.lost(now, view.seated, view.missing), islands.elsewhere(view)
        lost = {**apart, **proposer.expelled, **elsewhere}
        self.drafts.linkage.watch(now, view, evidence)
        cut = self.drafts.linkage.cut(now, view, lost, evidence)
        urgent = self._urgent(now, lost, told(cut, view.members, ()), acceptor)
        if not urgent:
            self._need_since = None
            proposer.settled()
        elif self._need_since is None:
            self._need_since = now
        gone = (evidence.dead, proposer.expelled, elsewhere)
        parts = parts_of(view, lost, gone, reaches) if apart else None
        ahead = parts.ahead(now, view, evidence) if parts is not None else 0
        asked = parts.others if parts is not None else ()
        waits = self._reunion.look(now, view, lost, asked, evidence.dead)
        if urgent and (waits or self._reunion.lacking):
            self._need_since = now  # nobody is late who could not have done anything
        proposer.waiting = self._reunion.story if waits else proposer.waiting
        turn = self._my_turn(now, view, lost, ahead)
        if turn is None or (turn > 0 and not urgent):
            proposer.change = None
            return []
        if proposer.change is not None and acceptor.promised > proposer.change.proposal.ballot:
            proposer.give_way(now)
        learners = {m.uid for m in view.learners if reaches(m.uid) and m.uid not in evidence.dead}
        if proposer.change is not None:
            proposal = proposer.change.proposal
            if self._outdated(proposal, now, view, urgent, lost, cut, learners, evidence):
                proposer.change = None
            else:
                steps = proposer.carry_on(now, view, evidence)
                if steps or proposer.change is not None:
                    return steps
        if waits or not proposer.may_propose(now):
            return []
        if urgent:
            new = self.drafts.without(view, lost, cut, learners, evidence)
            draft = Proposal(Ballot(), view.epoch, new, False, urgent)
            return proposer.propose(now, draft, (), view.uids)
        lineage, unmet = view.lineage, islands.unmet(view)
        if unmet and samples is not None:
            lineage = claimed(lineage, samples, unmet)
        wanted = self.drafts.planned(
            now,
            view,
            gone={m.uid for m in view.learners} - learners,
            cut=cut,
            permits=permits,
            least_switch=proposer.least_switch,
            reaches=reaches,
            evidence=evidence,
            lineage=lineage,
        )
        if isinstance(wanted, Plan):
            return proposer.propose(now, wanted.draft, (), wanted.asked)
        return list(wanted or ())

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
        change = self.proposer.change
        mine = change is not None and not change.proposal.planned
        if acceptor.frozen and (mine or acceptor.promised.proposer == self._me):
            return "nobody is lost after all"
        if acceptor.since is not None and now - acceptor.since > 3 * self._timeouts.longest_s:
            return "an earlier change was left undecided"
        return ""

    def _my_turn(
        self, now: float, view: View, lost: Mapping[Uid, str], ahead: int | None
    ) -> int | None:
        """0: this member leads; n: it is n-th in line and has waited long enough; else None.

        Behind those ``ahead`` of its part; None if its part may not go on.
        """
        rank, since = view.rank(self._me), self._need_since
        if rank is None or ahead is None or self._me in lost:
            return None
        place = ahead + (sum(uid not in lost for uid in view.uids[:rank]) if lost else rank)
        if place == 0:
            return 0
        if since is not None and now - since > place * 2 * self._timeouts.longest_s:
            return place
        return None

    def _outdated(
        self,
        proposal: Proposal,
        now: float,
        view: View,
        urgent: str,
        lost: Mapping[Uid, str],
        cut: Collection[Pair],
        learners: Set[Uid],
        evidence: Evidence,
    ) -> bool:
        """Another proposal must take the place of this one, which is open."""
        new = proposal.view
        if proposal.base != view.epoch:
            return True
        if proposal.planned:
            # A link that it takes back may have been lost again, and who is to join with it.
            gone = new.seated - view.seated - learners
            return bool(urgent or gone or evidence.confirmed(now, new.seated) - set(new.missing))
        wanted = self.drafts.left(view, lost, cut, {m.uid for m in new.learners}, evidence)
        return (new.members, new.learners, new.missing) != wanted
