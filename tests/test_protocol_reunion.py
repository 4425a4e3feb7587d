"""How long those who lacked a quorum wait for the rest: a little while, and never for ever."""

from __future__ import annotations

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.reunion import COMES_BACK_TIMEOUTS, Reunion
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Member, View

MEMBERS = tuple(Member(name, 1, "127.0.0.1", 1) for name in "abcde")
A, B, C, D, E = (member.uid for member in MEMBERS)
FIVE = View("r", 0, 1, MEMBERS, (), 0, mesh_plan([A, B, C, D, E]))


def met() -> Reunion:
    """Whose side has just been without a quorum, at second 0."""
    reunion = Reunion(Timeouts(1.0))
    assert not reunion.look(0.0, FIVE, [C, D, E], [], [])
    assert reunion.lacking
    return reunion


def test_who_may_come_back_soon_is_waited_for() -> None:
    reunion = met()
    assert reunion.look(0.1, FIVE, [D, E], [], [])
    assert reunion.look(0.1 + COMES_BACK_TIMEOUTS - 0.1, FIVE, [D, E], [], [])
    assert not reunion.look(0.1 + COMES_BACK_TIMEOUTS + 0.1, FIVE, [D, E], [], [])


def test_one_that_dies_has_not_come_back() -> None:
    reunion = met()
    assert reunion.look(0.1, FIVE, [D, E], [], [])
    assert reunion.look(1.5, FIVE, [D, E], [], [D])
    assert not reunion.look(0.1 + COMES_BACK_TIMEOUTS + 0.1, FIVE, [D, E], [], [D])


def test_nobody_is_waited_for_who_cannot_come_back() -> None:
    assert not met().look(0.1, FIVE, [D, E], [], [D, E])


def test_one_that_comes_and_goes_is_not_waited_for_for_ever() -> None:
    reunion = met()
    waits = [reunion.look(0.1 + t, FIVE, [D, E] if t % 2 else [E], [], []) for t in range(60)]
    assert waits[:6] == [True] * 6
    assert not any(waits[10:])


def test_a_view_of_all_does_not_end_the_wait() -> None:
    reunion = met()
    assert not reunion.look(0.1, FIVE, [], [], [])
    reunion.installed(FIVE)
    assert reunion.look(0.2, FIVE, [A], [], [])  # until its data get through
    assert not reunion.look(0.3, FIVE, [], [], [])
    assert not reunion.look(0.3 + COMES_BACK_TIMEOUTS, FIVE, [], [], [])
    assert not reunion.look(0.4 + COMES_BACK_TIMEOUTS, FIVE, [A], [], [])


def test_who_is_left_out_has_not_come_back() -> None:
    reunion = met()
    assert reunion.look(0.1, FIVE, [D, E], [], [])
    assert not reunion.look(0.1 + COMES_BACK_TIMEOUTS, FIVE, [D, E], [], [])
    three = View("r", 0, 2, MEMBERS[:3], (), 0, mesh_plan([A, B, C]))
    reunion.installed(three)
    assert not reunion.look(0.2 + COMES_BACK_TIMEOUTS, three, [C], [], [])
