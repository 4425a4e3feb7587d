"""One view change as its proposer sees it: whom it asked, what they said, whether it holds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from lightning_chaos.protocol.messages import Ack, Nack
from lightning_chaos.protocol.quorum import has_quorum, may_commit
from lightning_chaos.protocol.values import Proposal, Uid, View


@dataclass(slots=True)
class Change:
    """An open proposal."""

    proposal: Proposal
    carried: tuple[Proposal, ...]
    """Older proposals that may be committed somewhere: their views count as last views too."""
    asked: tuple[Uid, ...]
    deadline: float
    acks: dict[Uid, Ack] = field(default_factory=dict)
    nacks: dict[Uid, Nack] = field(default_factory=dict)

    @property
    def needed(self) -> tuple[Uid, ...]:
        """A planned change waits for all it asked, an unplanned one for the new members."""
        if self.proposal.planned:
            return self.asked
        return self.proposal.view.uids

    @property
    def missing(self) -> tuple[Uid, ...]:
        """Whose ACK is still needed."""
        return tuple(uid for uid in self.needed if uid not in self.acks)

    def uncertain(self, me: Uid, last: View) -> tuple[Proposal, ...]:
        """Older proposals that may be committed somewhere, as far as the answers tell.

        Those carried already stay, until an answer rules them out: or else two members whose
        answers overtake each other would have one propose anew again and again.

        A proposal is committed only with the ACK of all its view's members, by its proposer
        alone.  So one's own is not, one whose proposer has ACKed this one never will be (it gave
        its own up), nor one that an answering member of its view has not ACKed (its answer
        promised to ACK nothing lower any more), nor one that no member of the new view has
        ACKed, if they and others who have not are a quorum of the last view.
        """
        found = dict.fromkeys(self.carried)
        answers: list[Ack | Nack] = [*self.acks.values(), *self.nacks.values()]
        for given in answers:
            found.update(dict.fromkeys(given.prior))
        return tuple(
            p
            for p in found
            if p.ballot.proposer != me
            and p.ballot.proposer not in self.acks
            and p.ballot < self.proposal.ballot
            and all(
                p in answer.prior
                for uid, answer in self.acks.items()
                if p.view.rank(uid) is not None
            )
            and not self._without(p, last)
        )

    def _without(self, older: Proposal, last: View) -> bool:
        """Those who have not ACKed it could commit this change by themselves."""
        lack = [uid for uid, answer in self.acks.items() if older not in answer.prior]
        mine = self.proposal.view.uids
        return has_quorum(last.uids, lack) and all(uid in lack for uid in mine)

    def verdict(
        self, last: View, uncertain: Collection[Proposal], dead: Collection[Uid]
    ) -> tuple[bool, str]:
        """Whether the agreement is enough, and why (not); ``last`` is the base view."""
        agreed, reason = may_commit(last.uids, self.acks, dead)
        for proposal in uncertain:
            uids = proposal.view.uids
            if agreed and not all(uid in dead for uid in uids):
                agreed, reason = may_commit(uids, self.acks, dead)
        return agreed, reason
