"""Hundreds of view changes leave nothing behind in the peers that go through them."""

from __future__ import annotations

import gc
import tracemalloc

from transcript import Town

WARM_UP = 100
CHANGES = 500


def test_five_hundred_view_changes_cost_no_memory() -> None:
    town = Town()
    town.do_cluster("a", "b", "d")
    town.do_begin("0", "a", "b", "d")
    town.do_node("c")
    tracemalloc.start()
    try:
        before = 0
        while (epoch := _epoch(town)) < WARM_UP + CHANGES:
            _come_and_go(town)
            _lose_a_link(town)
            if not before and epoch >= WARM_UP:
                before = _held_bytes()
        grown = _held_bytes() - before
    finally:
        tracemalloc.stop()
    assert grown < 100 * CHANGES  # bytes; who died is remembered, up to a bound


def _come_and_go(town: Town) -> None:
    """A new incarnation of c joins, works for a round and leaves."""
    town.do_restart("c")
    town.do_link("a", "b", "c", "d")
    town.do_search("c", exclusive="yes")
    town.do_deliver()
    town.do_seat("c")
    town.do_deliver()
    town.do_pulled("c")
    town.do_deliver()
    _round(town, "a", "b", "c", "d")
    town.do_leave("c")
    town.do_deliver()
    _round(town, "a", "b", "d")
    town.do_kill("c")
    town.do_wait("0.2")
    town.out.clear()


def _lose_a_link(town: Town) -> None:
    town.do_cut("b", "d")
    town.do_deliver()
    town.do_link("b", "d")
    town.now += 60.0  # calm enough to be believed at once
    town.do_wait("0.2")
    _round(town, "a", "b", "d")
    town.out.clear()


def _round(town: Town, *names: str) -> None:
    view = town.nodes["a"].view
    assert view is not None
    for round_ in range(town.nodes["a"].permits.begun + 1, view.switch + 1):
        town.do_begin(str(round_), *names)
        for name in names:
            town.do_holds(name, f"{round_}.0")
        town.do_deliver()


def _epoch(town: Town) -> int:
    view = town.nodes["a"].view
    assert view is not None
    return view.epoch


def _held_bytes() -> int:
    """What the protocol's own code has allocated and not given back."""
    gc.collect()
    only = tracemalloc.Filter(True, "*/lightning_chaos/protocol/*")
    found = tracemalloc.take_snapshot().filter_traces([only]).statistics("filename")
    return sum(part.size for part in found)
