"""What peer and worker keep does not grow with the views that there have been."""

from __future__ import annotations

import gc
import tracemalloc
import types

import pytest
from transcript import Town

from lightning_chaos.collective.layout import Layout
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol import evidence
from lightning_chaos.protocol.membership import Membership

_SHARED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)


def kept(peer: Membership) -> int:
    """How many objects it holds, whatever holds them."""
    seen: dict[int, object] = {}
    queue: list[object] = [peer]
    while queue:
        one = queue.pop()
        if id(one) not in seen and not isinstance(one, _SHARED):
            seen[id(one)] = one
            queue.extend(gc.get_referents(one))
            if isinstance(one, dict):
                queue.extend(one)  # of strings as keys the collector says nothing
    return len(seen)


def come_and_go(town: Town, times: int) -> None:
    """A member dies and comes back as another incarnation."""
    for _ in range(times):
        view = town.nodes["a"].view
        assert view is not None
        assert [m.node for m in view.members] == ["a", "b", "c"]
        for name in "ab":
            town.play(f"holds {name} {view.switch - 1}.0")
        for line in ("kill c", "deliver", "restart c", "link a b c", "search c", "deliver"):
            town.play(line)
        for line in ("seat c", "deliver", "pulled c", "deliver", "wait 0.2"):
            town.play(line)


def test_a_member_keeps_nothing_of_those_who_went(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MOST_DEAD", 4)
    town = Town()
    town.play("cluster a b c")
    come_and_go(town, 8)
    before = {name: kept(town.nodes[name]) for name in "ab"}
    come_and_go(town, 16)
    assert {name: kept(town.nodes[name]) for name in "ab"} == before


def test_a_request_that_came_through_others_is_forgotten_with_who_made_it() -> None:
    town = Town()
    town.play("cluster a b c")
    for line in ("node d", "link a b c d", "search d", "deliver", "seat d", "deliver"):
        town.play(line)
    view = town.nodes["a"].view
    assert view is not None
    assert [m.node for m in view.learners] == ["d"]
    for line in ("node e", "link a b c e", "search e", "deliver", "cut a e", "cut c e"):
        town.play(line)
    for line in ("seat e", "deliver", "wait 12"):
        town.play(line)
    wishes = town.nodes["a"]._agreement.lead.drafts.wishes
    assert [uid.partition("/")[0] for uid in wishes._joins] == ["e"]
    town.play("kill e seen=silence")
    for line in ("wait 12", "pulled d", "deliver"):
        town.play(line)
    assert not wishes._joins


def test_how_a_vector_was_cut_under_views_long_gone_is_forgotten() -> None:
    buckets = [(i << 22, 1 << 22) for i in range(20)]
    sizes = []
    tracemalloc.start()
    try:
        for i in range(48):
            members = ("a/1", "b/1", f"c/{i:x}")
            Layout.of(members, mesh_plan(members), buckets)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[-1] < 1.5 * sizes[23]


def test_a_newcomer_that_was_refused_is_no_neighbour_any_more() -> None:
    town = Town()
    town.play("node a d")
    for line in ("search a exclusive=yes", "seat a", "deliver"):
        town.play(line)
    sizes = []
    for _ in range(6):
        for line in ("restart d", "link a d", "deliver", "search d", "deliver"):
            town.play(line)
        for line in ("seat d model=other", "deliver"):
            town.play(line)
        assert town.nodes["d"].role.value == "out"
        del town.nodes["d"]  # its peer hears from the other side that the connection ends
        town.play("wait 0.3")
        sizes.append(kept(town.nodes["a"]))
    assert sizes[-1] == sizes[1]
