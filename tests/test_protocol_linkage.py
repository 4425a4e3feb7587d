"""A link that works again is taken back after a calm that grows with each loss (design §4)."""

from __future__ import annotations

import msgspec
import pytest

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.linkage import LONGEST_CALM_S, Linkage
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Member, View

TIMEOUT_S = 0.5
MEMBERS = tuple(Member(name, 1, "127.0.0.1", 1) for name in "abc")
UIDS = tuple(member.uid for member in MEMBERS)
LINK = UIDS[1:]
WHOLE = View("r", 0, 5, MEMBERS, (), 7, mesh_plan(UIDS))
WITHOUT = msgspec.structs.replace(WHOLE, missing=(LINK,))


class Lost:
    """A link that has been lost so often, each time as soon as it was back."""

    def __init__(self, times: int) -> None:
        timeouts = Timeouts(TIMEOUT_S)
        self.linkage, self.evidence = Linkage(timeouts), Evidence(UIDS[0], timeouts)
        for uid in LINK:
            self.evidence.spoke(uid)
        for _ in range(times):
            self.linkage.installed(100.0, WITHOUT, WHOLE)

    def works(self, now: float) -> None:
        self.linkage.watch(now, WITHOUT, self.evidence)

    def is_back(self, now: float) -> bool:
        return LINK in self.linkage.back(now, WITHOUT, self.evidence)


@pytest.mark.parametrize(
    ("losses", "calm_s"), [(1, 0.0), (2, 0.5), (3, 1.0), (4, 2.0), (5, 4.0), (20, LONGEST_CALM_S)]
)
def test_each_loss_doubles_the_calm_that_is_asked_for(losses: int, calm_s: float) -> None:
    link = Lost(losses)
    link.works(100.0)
    assert calm_s == 0.0 or not link.is_back(100.0 + calm_s - 0.01)
    assert link.is_back(100.0 + calm_s)


def test_a_link_that_is_denied_meanwhile_must_be_calm_anew() -> None:
    link = Lost(3)
    link.works(100.0)
    link.evidence.others_say(100.5, LINK[0], (LINK[1],))
    link.works(100.5)
    link.evidence.others_say(100.9, LINK[0], ())
    link.works(100.9)
    assert not link.is_back(101.8)
    assert link.is_back(101.9)


def test_it_is_not_back_before_both_ends_have_spoken_to_whoever_leads_now() -> None:
    link = Lost(1)
    link.works(100.0)
    link.evidence.lead_changed()
    assert not link.is_back(101.0)
    link.evidence.spoke(LINK[0])
    assert not link.is_back(101.0)
    link.evidence.spoke(LINK[1])
    assert link.is_back(101.2)


def test_what_has_not_been_lost_for_long_starts_anew() -> None:
    link = Lost(5)
    later = 100.0 + LONGEST_CALM_S + 1.0
    link.linkage.installed(later, WITHOUT, WHOLE)
    link.works(later)
    assert link.is_back(later)
