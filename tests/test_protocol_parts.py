"""Who stays when lost links split members who can all be asked: all of them conclude the same."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.parts import parts_of
from lightning_chaos.protocol.quorum import has_quorum
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Member, Uid, View

UIDS = tuple(f"{name}/1" for name in "abcdefg")
NOW = 100.0


def view_of(uids: tuple[Uid, ...]) -> View:
    members = tuple(Member(uid[0], 1, "127.0.0.1", 1) for uid in uids)
    return View("r", 0, 5, members, (), 0, mesh_plan(uids))


def ahead(me: Uid, view: View, denied: dict[Uid, list[Uid]], silent: tuple[Uid, ...]) -> int | None:
    """What this member computes from what all say, if these do not answer."""
    evidence = Evidence(me, Timeouts(1.0))
    for uid, others in denied.items():
        evidence.others_say(0.0, uid, others)
    lost = evidence.lost(NOW, view.seated, view.missing)
    parts = parts_of(view, lost, (evidence.dead,), lambda uid: uid not in silent)
    return parts.ahead(NOW, view, evidence) if parts is not None else 0


def split(sides: list[tuple[Uid, ...]], one_end: random.Random) -> dict[Uid, list[Uid]]:
    """Nothing gets through between the sides; at least one end of each link says so."""
    denied: dict[Uid, list[Uid]] = {uid: [] for side in sides for uid in side}
    for one, other in combinations(sides, 2):
        for a in one:
            for b in other:
                ends = one_end.choice([[(a, b)], [(b, a)], [(a, b), (b, a)]])
                for says, of in ends:
                    denied[says].append(of)
    return denied


@pytest.mark.parametrize("seed", range(60))
def test_the_largest_part_goes_first_and_nobody_beside_one_that_is_a_quorum(seed: int) -> None:
    rng = random.Random(seed)
    uids = UIDS[: rng.randint(2, 7)]
    side_of = {uid: rng.randrange(3) for uid in uids}
    sides = [s for i in range(3) if (s := tuple(u for u in uids if side_of[u] == i))]
    best = min(sides, key=lambda side: (-len(side), uids.index(side[0])))
    view, denied = view_of(uids), split(sides, rng)
    for side in sides:
        places = {ahead(uid, view, denied, ()) for uid in side}
        assert len(places) == 1
        place = places.pop()
        if side == best:
            assert place == 0
        elif has_quorum(uids, best):
            assert place is None
        else:
            assert place is not None
            assert place >= len(best)


def test_a_part_that_cannot_be_asked_holds_nobody_up() -> None:
    view, denied = view_of(UIDS[:4]), split([UIDS[:1], UIDS[1:4]], random.Random(1))
    assert ahead(UIDS[0], view, denied, ()) is None
    assert ahead(UIDS[0], view, denied, silent=UIDS[1:4]) == 0
