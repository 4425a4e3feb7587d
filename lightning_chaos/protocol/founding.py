"""Who founds the run when several candidates without a view meet (design §4, founding).

Offers are ordered by the candidate's identity.  A candidate accepts only the smallest it has
heard, and no second one while the first stands; whoever holds ``min_members`` acceptances, its
own included, founds a view of itself and the others join it.  So when ``min_members`` is more
than half of all candidates, one run is founded.
"""

from __future__ import annotations

from lightning_chaos.protocol.events import Action, Send
from lightning_chaos.protocol.messages import Accept, Offer, Withdraw
from lightning_chaos.protocol.values import Ballot, Uid


class Founding:
    """One candidate's side; feed it what was heard, it says what to send."""

    def __init__(self, me: Uid, min_members: int) -> None:
        self._me = me
        self._ballot = Ballot(1, me)
        self._needed = min_members
        self._candidates: set[Uid] = set()
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
    def missing(self) -> int:
        """How many acceptances this candidate still lacks."""
        return max(0, self._needed - len(self._accepts | {self._me}))

    def open(self) -> list[Action]:
        """The search is over: offers may be made."""
        self._open = True
        return self._next()

    def met(self, uid: Uid) -> list[Action]:
        """Another candidate is linked."""
        self._candidates.add(uid)
        out = self._next()
        if self._offering:
            out.append(Send(uid, Offer(self._ballot)))
        return out

    def lost(self, uid: Uid) -> list[Action]:
        """A candidate is gone, and with it its offer and acceptance."""
        self._candidates.discard(uid)
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
        """Offer, withdraw or accept, as the smallest candidate known demands."""
        if not self._open:
            return []
        out: list[Action] = []
        smallest = min(self._candidates | {self._me})
        if smallest == self._me and self._accepted is None:
            if not self._offering:
                self._offering, self._accepts = True, {self._me}
                out += [Send(uid, Offer(self._ballot)) for uid in sorted(self._candidates)]
            return out
        if self._offering and not self.won:
            self._offering, self._accepts = False, set()
            out += [Send(uid, Withdraw(self._ballot)) for uid in sorted(self._candidates)]
        if self._accepted is None and not self._offering and smallest in self._offers:
            self._accepted = smallest
            out.append(Send(smallest, Accept(self._offers[smallest])))
        return out
