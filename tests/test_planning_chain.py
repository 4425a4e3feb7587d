"""The size of a shard: the scan with its stop, against all sizes and against the theory."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optimality import checked_pull

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning import chain
from lightning_chaos.planning.chain import plan_over_chain, shard_chain
from lightning_chaos.planning.pull import DonorLink, PullPlan, plan_pull

KIB, MIB = 1 << 10, 1 << 20
CHAIN = (4 * MIB, 2 * MIB, MIB, 512 * KIB, 256 * KIB, 128 * KIB, 64 * KIB)

rates = st.floats(1e5, 1e8)
releases = st.floats(0, 3)
states = st.integers(4 * MIB, 1 << 30)


def donor_lists(overheads: st.SearchStrategy[float]) -> st.SearchStrategy[list[DonorLink]]:
    figures = st.tuples(rates, releases, overheads)
    return st.lists(figures, min_size=1, max_size=6).map(
        lambda rows: [DonorLink(f"d{i}", *row) for i, row in enumerate(rows)]
    )


@given(states, donor_lists(st.floats(0, 0.5)), st.none() | rates)
def test_the_scan_that_stops_finds_what_all_sizes_have(
    total: int, donors: list[DonorLink], cap: float | None
) -> None:
    ingress = (cap,) if cap else ()
    every = [checked_pull(total, size, donors, *ingress) for size in CHAIN]
    best = min(every, key=lambda plan: plan.makespan_s)
    assert plan_over_chain(total, CHAIN, donors, *ingress) == best


def test_the_scan_stops_at_the_first_size_that_cannot_be_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at = []

    def watched(total: int, size: int, *others: Any) -> PullPlan:
        looked_at.append(size)
        return plan_pull(total, size, *others)

    monkeypatch.setattr(chain, "plan_pull", watched)
    # a second for each shard: twice as many cost more than any cut of the last one saves
    donors = [DonorLink(f"d{i}", 1e6, overhead_s=1.0) for i in range(3)]
    assert plan_over_chain(304 * MIB, CHAIN, donors).shard_bytes == CHAIN[0]
    assert looked_at == list(CHAIN[:2])


@given(states, donor_lists(st.just(0.0)))
def test_without_overhead_finer_is_never_worse(total: int, donors: list[DonorLink]) -> None:
    every = [checked_pull(total, size, donors).makespan_s for size in CHAIN]
    assert all(fine <= coarse * (1 + 1e-12) for coarse, fine in itertools.pairwise(every))


@given(states, donor_lists(st.floats(0, 0.5)))
def test_the_bound_only_rises_towards_finer_sizes_and_is_at_most_a_period_away(
    total: int, donors: list[DonorLink]
) -> None:
    plans = [checked_pull(total - total % size, size, donors) for size in CHAIN]
    for plan in plans:
        longest = max(donor.shard_s(plan.shard_bytes) for donor in donors)
        assert plan.bound_s <= plan.makespan_s * (1 + 1e-9)
        assert plan.makespan_s <= (plan.bound_s + longest) * (1 + 1e-9)
    bounds = [checked_pull(total, size, donors).bound_s for size in CHAIN]
    assert all(coarse <= fine * (1 + 1e-9) for coarse, fine in itertools.pairwise(bounds))


def test_a_finer_size_that_is_no_divisor_can_be_worse() -> None:
    donors = [DonorLink("a", 1.0), DonorLink("b", 1.0)]
    assert checked_pull(6, 3, donors).makespan_s == 3
    assert checked_pull(6, 2, donors).makespan_s == 4


def test_with_overhead_the_makespan_goes_up_and_down_along_the_chain() -> None:
    donors = [DonorLink(name, 1.0, 0.0, 0.2) for name in "abc"]
    every = [checked_pull(16, size, donors).makespan_s for size in (16, 8, 4, 2, 1)]
    assert every == pytest.approx([16.2, 8.2, 8.4, 6.6, 7.2])
    assert plan_over_chain(16, (16, 8, 4, 2, 1), donors).shard_bytes == 2


@pytest.mark.parametrize(
    ("total", "sizes"),
    [(1, (1,)), (100 * KIB, (64 * KIB,)), (300 * KIB, CHAIN[-3:]), (1 << 40, CHAIN)],
)
def test_the_usual_chain_leaves_out_what_is_larger_than_the_state(
    total: int, sizes: tuple[int, ...]
) -> None:
    assert shard_chain(total) == sizes


@pytest.mark.parametrize("sizes", [(), (0,), (4, 3), (4, 4), (2, 4), (4, -2)])
def test_sizes_that_are_no_chain_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="shard sizes must"):
        plan_over_chain(100, sizes, [DonorLink("a", 1.0)])
