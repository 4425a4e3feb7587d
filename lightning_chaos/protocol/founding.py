"""Who founds the run when several candidates without a view meet (design §4, founding).

Offers are ordered: the candidate with the newest checkpoint comes first, among equals the one with
the smallest identity.  A candidate accepts only the first it has heard of, and no second one while
that stands; whoever holds ``min_members`` acceptances, its own included, founds a view of itself
and the others join it.  So when ``min_members`` is more than half of all candidates, one run is
founded; and of any ``min_members`` that found it, the newest checkpoint is the one it goes on from.
"""

from __future__ import annotations

from lightning_chaos.protocol.events import Action, Send
from lightning_chaos.protocol.messages import Accept, Offer, Withdraw
from lightning_chaos.protocol.values import Ballot, Member, Uid


class Founding:
    """One candidate's side; feed it what was heard, it says what to send."""

    def __init__(self, me: Member, min_members: int) -> None:
        self._me = me.uid
        self._ballot = Ballot(0, me.uid)
        """Of its latest offer."""
        self._needed = min_members
        self._all = {me.uid: me}
        self._offers: dict[Uid, Ballot] = {}
        self._accepted: Uid | None = None
        self._accepts: set[Uid] = set()
        self._offering = False
        self._open = False

    @property
    def won(self) -> bool:
        """Enough candidates accept this one's offer."""
        return self._offering and len(self._accepts) >= self._needed

    @property
    def acceptors(self) -> frozenset[Uid]:
        """Those who accept this one's offer, itself included, if they are enough."""
        return frozenset(self._accepts) if self.won else frozenset()

    @property
    def missing(self) -> int:
        """How many acceptances this candidate still lacks."""
        return max(0, self._needed - len(self._accepts | {self._me}))

    def open(self) -> list[Action]:
        """The search is over: offers may be made."""
        self._open = True
        return self._next()

    def again(self) -> list[Action]:
        """Where it stands, for those who may have missed it: messages are lost with connections."""
        if not self._ballot.counter and self._accepted is None:
            return []
        if self._offering:
            late = [uid for uid in self._candidates if uid not in self._accepts]
            return [Send(uid, Offer(self._ballot)) for uid in late]
        out: list[Action] = []
        if self._ballot.counter:
            out += [Send(uid, Withdraw(self._ballot)) for uid in self._candidates]
        if self._accepted is not None:
            out.append(Send(self._accepted, Accept(self._offers[self._accepted])))
        return out

    @property
    def _candidates(self) -> list[Uid]:
        """All others, in order of their identities."""
        return sorted(self._all.keys() - {self._me})

    def met(self, candidate: Member) -> list[Action]:
        """Another candidate is linked."""
        self._all[candidate.uid] = candidate
        out = self._next()
        if self._offering:
            out.append(Send(candidate.uid, Offer(self._ballot)))
        return out

    def lost(self, uid: Uid) -> list[Action]:
        """A candidate is gone, and with it its offer and acceptance."""
        self._all.pop(uid, None)
        self._offers.pop(uid, None)
        self._accepts.discard(uid)
        if self._accepted == uid:
            self._accepted = None
        return self._next()

    def heard(self, sender: Uid, message: Offer | Accept | Withdraw) -> list[Action]:
        """A candidate offers, accepts this one's offer, or withdraws its own."""
        match message:
            case Offer(ballot=ballot):
                self._offers[sender] = ballot
            case Withdraw():
                self._offers.pop(sender, None)
                if self._accepted == sender:
                    self._accepted = None
            case Accept(ballot=ballot):
                if self._offering and ballot == self._ballot:
                    self._accepts.add(sender)
        return self._next()

    def _next(self) -> list[Action]:
        """Offer, withdraw or accept, as the first candidate known demands."""
        if not self._open:
            return []
        out: list[Action] = []
        first = min(self._all.values(), key=lambda m: m.past.place(m.uid)).uid
        if first == self._me and self._accepted is None:
            if not self._offering:
                self._offering, self._accepts = True, {self._me}
                self._ballot = Ballot(self._ballot.counter + 1, self._me)
                out += [Send(uid, Offer(self._ballot)) for uid in self._candidates]
            return out
        if self._offering and not self.won:
            self._offering, self._accepts = False, set()
            out += [Send(uid, Withdraw(self._ballot)) for uid in self._candidates]
        if self._accepted is None and not self._offering and first in self._offers:
            self._accepted = first
            out.append(Send(first, Accept(self._offers[first])))
        return out
