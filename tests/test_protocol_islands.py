"""Which of several lineages stays: never do all give up, and none for less than it has."""

from __future__ import annotations

from itertools import permutations

import msgspec
import pytest

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.islands import Islands, claimed, outranks
from lightning_chaos.protocol.values import Claim, Lineage, Member, View


def view(name: str, samples: int | None, *against: str, generation: int = 0) -> View:
    """Of a lineage that was founded by that node, with that claim."""
    me = Member(name, 1, "127.0.0.1", 1)
    claim = Claim(samples, against) if samples is not None else None
    plan = mesh_plan((me.uid,))
    return View("r", generation, 5, (me,), (), 0, plan, lineage=Lineage(me.uid, claim=claim))


def test_generation_counts_before_samples_and_samples_before_the_name() -> None:
    order = [view("c", 1, generation=1), view("b", 9), view("a", 8), view("d", 8), view("a", None)]
    for i, one in enumerate(order):
        for other in order[i + 1 :]:
            assert outranks(one, other)
            assert not outranks(other, one)


@pytest.mark.parametrize("samples", [(7, 7, 7), (1, 2, 3), (0, 5, 5)])
def test_whoever_hears_what_of_whom_one_of_three_lineages_stays(samples: tuple[int, ...]) -> None:
    names = ("a/1", "b/1", "c/1")
    views = [
        view(name[0], count, *(n for n in names if n != name))
        for name, count in zip(names, samples, strict=True)
    ]
    for first, second, third in permutations(views):
        stay = []
        for mine, heard in ((first, [second]), (second, [third, first]), (third, [first, second])):
            islands = Islands()
            for other in heard:
                islands.hear(other)
            stay.append(islands.better(mine, (), names, None) is None)
        assert any(stay)


def test_nobody_gives_up_before_its_own_claim_stands() -> None:
    islands = Islands()
    islands.hear(view("b", 100))
    for mine in (view("a", None), view("a", 1, "c/1")):
        assert islands.unmet(mine) == ("b/1",)
        assert islands.better(mine, (), ("b/1",), None) is None
    assert islands.better(view("a", 1, "b/1"), (), ("b/1",), None) is not None


def test_a_claim_agreed_to_counts_even_if_it_may_never_be_committed() -> None:
    islands = Islands()
    islands.hear(view("b", 100))
    mine = view("a", 1, "b/1")
    assert islands.better(mine, (view("a", 200, "b/1"),), ("b/1",), None) is None


def test_nobody_gives_up_for_one_that_it_cannot_reach() -> None:
    islands = Islands()
    islands.hear(view("b", 100))
    assert islands.better(view("a", 1, "b/1"), (), ("x/1",), None) is None


@pytest.mark.parametrize(("samples", "joins"), [(100, True), (101, False)])
def test_a_paused_side_joins_a_run_that_has_come_as_far(samples: int, joins: bool) -> None:
    islands = Islands()
    islands.hear(view("b", 100))
    assert (islands.better(view("a", None), (), ("b/1",), samples) is not None) == joins


def test_claims_only_grow() -> None:
    first = claimed(Lineage("a/1"), 50, ("b/1",))
    later = claimed(first, 40, ("c/1",))
    assert later.claim == Claim(50, ("b/1", "c/1"))


def test_members_that_agreed_to_a_later_view_elsewhere_are_gone_from_here() -> None:
    mine, theirs = view("a", None), view("a", None)
    lineage = Lineage("a/1", "a/1@6")
    islands = Islands()
    islands.hear(msgspec.structs.replace(theirs, epoch=6, lineage=lineage))
    assert "the island of a, split off in epoch 6" in islands.elsewhere(mine)["a/1"]
    assert not islands.elsewhere(msgspec.structs.replace(mine, epoch=7))
