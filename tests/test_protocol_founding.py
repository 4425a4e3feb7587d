"""Candidates agree who founds the run, whatever is lost with connections that break."""

from __future__ import annotations

import random

import pytest

from lightning_chaos.protocol.events import Action, Send
from lightning_chaos.protocol.founding import Founding
from lightning_chaos.protocol.messages import Accept, Offer, Withdraw
from lightning_chaos.protocol.values import Member, Uid


class Meeting:
    """Candidates, and the messages under way between them, of which some are lost."""

    def __init__(self, seed: int, count: int, needed: int) -> None:
        self.rng = random.Random(seed)
        self.members = [Member(name, 1, "127.0.0.1", 1) for name in "abcdefg"[:count]]
        self.rng.shuffle(self.members)
        self.all = {m.uid: Founding(m, needed) for m in self.members}
        self.wires: dict[tuple[Uid, Uid], list[Offer | Accept | Withdraw]] = {}
        self.lossy = True

    def do(self, who: Uid, actions: list[Action]) -> None:
        for action in actions:
            assert isinstance(action, Send)
            assert isinstance(action.message, Offer | Accept | Withdraw)
            self.wires.setdefault((who, action.to), []).append(action.message)

    def meet(self, one: Member, two: Member) -> None:
        self.do(one.uid, self.all[one.uid].met(two))
        self.do(two.uid, self.all[two.uid].met(one))

    def deliver(self) -> None:
        """One message arrives, or all on its wire are lost as its connection breaks."""
        wire = self.rng.choice(sorted(w for w, messages in self.wires.items() if messages))
        if self.lossy and self.rng.random() < 0.3:
            self.wires[wire].clear()
            return
        message = self.wires[wire].pop(0)
        self.do(wire[1], self.all[wire[1]].heard(wire[0], message))

    def deliver_all(self) -> None:
        while any(self.wires.values()):
            self.deliver()
            assert len(self.winners) <= 1

    def say_again(self) -> None:
        for uid, founding in self.all.items():
            self.do(uid, founding.again())

    @property
    def winners(self) -> list[Uid]:
        return [uid for uid, founding in self.all.items() if founding.won]


@pytest.mark.parametrize("seed", range(30))
def test_the_first_is_agreed_on_though_messages_are_lost(seed: int) -> None:
    count = 3 + seed % 4
    meeting = Meeting(seed, count, needed=count // 2 + 1)
    pairs = [(a, b) for i, a in enumerate(meeting.members) for b in meeting.members[:i]]
    meeting.rng.shuffle(pairs)
    for member in meeting.members:
        meeting.do(member.uid, meeting.all[member.uid].open())
    for pair in pairs:
        meeting.meet(*pair)
        for _ in range(meeting.rng.randrange(4)):
            if any(meeting.wires.values()):
                meeting.deliver()
    meeting.deliver_all()
    meeting.lossy = False
    for _ in range(3):
        meeting.say_again()
        meeting.deliver_all()
    assert len(meeting.winners) == 1


def test_an_acceptance_of_an_earlier_offer_counts_for_no_later_one() -> None:
    a, b, c = (Member(name, 1, "127.0.0.1", 1) for name in "abc")
    founding = Founding(b, 2)
    founding.open()
    (offered,) = founding.met(c)
    assert isinstance(offered, Send)
    assert isinstance(offered.message, Offer)
    founding.met(a)  # comes first: b withdraws
    founding.lost(a.uid)  # and offers once more
    founding.heard(c.uid, Accept(offered.message.ballot))
    assert not founding.won
