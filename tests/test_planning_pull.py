"""The pull schedule: earliest-completion greedy against brute force and the theory."""

from __future__ import annotations

import doctest
import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optimality import checked_pull

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning.completion import fluid, greedy, max_min, rounding
from lightning_chaos.planning.graph import Cap, Graph, Link
from lightning_chaos.planning.pull import (
    DonorLink,
    choose_shard_bytes,
    donors_of,
    feed,
)

MIB = 1 << 20

links = st.builds(
    lambda rate, release, overhead: (rate, release, overhead),
    st.floats(1e3, 1e9),
    st.floats(0, 2),
    st.floats(0, 0.1),
)
instances = st.tuples(
    st.integers(1, 1 << 20), st.integers(1, 40), st.lists(links, min_size=1, max_size=4)
)


def donor_links(figures: list[tuple[float, float, float]]) -> list[DonorLink]:
    return [DonorLink(f"d{i}", *figure) for i, figure in enumerate(figures)]


def brute_force(shards: int, shard_bytes: int, donors: list[DonorLink]) -> float:
    best = math.inf
    for counts in itertools.product(range(shards + 1), repeat=len(donors)):
        if sum(counts) == shards:
            ends = [
                d.release_s + n * d.shard_s(shard_bytes)
                for d, n in zip(donors, counts, strict=True)
                if n
            ]
            best = min(best, max(ends))
    return best


@given(st.integers(1, 1 << 20), st.integers(1, 6), st.lists(links, min_size=1, max_size=3))
def test_the_greedy_is_as_good_as_trying_everything(
    shard_bytes: int, shards: int, figures: list[tuple[float, float, float]]
) -> None:
    donors = donor_links(figures)
    plan = checked_pull(shards * shard_bytes, shard_bytes, donors)
    assert plan.makespan_s == pytest.approx(brute_force(shards, shard_bytes, donors))


@given(instances)
def test_the_makespan_is_the_kth_smallest_completion(
    instance: tuple[int, int, list[tuple[float, float, float]]],
) -> None:
    shard_bytes, shards, figures = instance
    donors = donor_links(figures)
    completions = sorted(
        d.release_s + j * d.shard_s(shard_bytes) for d in donors for j in range(1, shards + 1)
    )
    plan = checked_pull(shards * shard_bytes, shard_bytes, donors)
    assert plan.makespan_s == completions[shards - 1]


@given(instances)
def test_the_rules_of_optimality_hold(
    instance: tuple[int, int, list[tuple[float, float, float]]],
) -> None:
    shard_bytes, shards, figures = instance
    donors = donor_links(figures)
    checked_pull(shards * shard_bytes, shard_bytes, donors)


@given(
    st.integers(1, 3000),
    st.lists(
        st.tuples(st.floats(1e-6, 1), st.floats(0, 10) | st.sampled_from([0.0, 1.0])),
        min_size=1,
        max_size=12,
    ),
)
def test_rounding_picks_what_the_greedy_picks(
    shards: int, figures: list[tuple[float, float]]
) -> None:
    periods, releases = zip(*figures, strict=True)
    assert rounding(shards, periods, releases) == greedy(shards, periods, releases)


def test_how_many_shards_there_are_makes_no_difference() -> None:
    """One by one a million million of them would take weeks."""
    donors = [DonorLink(f"d{i}", 1e6 * (i + 1), i / 100, 1e-4) for i in range(64)]
    plan = checked_pull(10**12 << 16, 1 << 16, donors)
    assert sum(plan.counts.values()) == 10**12


def test_a_hundred_thousand_shards_are_shared_out_as_the_greedy_does_it() -> None:
    donors = [DonorLink(f"d{i}", 1e6 * (i + 1), i / 100, 1e-4) for i in range(64)]
    plan = checked_pull(100_000 << 16, 1 << 16, donors)
    assert sum(plan.counts.values()) == 100_000
    assert (
        plan.makespan_s
        == greedy(100_000, [d.shard_s(1 << 16) for d in donors], [d.release_s for d in donors])[1]
    )


@given(instances, st.integers(0, 1 << 20))
def test_ranges_cover_every_shard_once_and_no_plan_beats_the_fluid_bound(
    instance: tuple[int, int, list[tuple[float, float, float]]], short: int
) -> None:
    shard_bytes, shards, figures = instance
    total = shards * shard_bytes - short % shard_bytes
    if total < shard_bytes:
        total = shard_bytes
    plan = checked_pull(total, shard_bytes, donor_links(figures))
    covered = [index for first, end in plan.ranges.values() for index in range(first, end)]
    assert covered == list(range(plan.shards))
    assert {name: end - first for name, (first, end) in plan.ranges.items()} == plan.counts
    assert plan.bound_s <= plan.makespan_s * (1 + 1e-9)
    slowest = max(d.shard_s(shard_bytes) for d in donor_links(figures))
    assert plan.makespan_s <= plan.bound_s + 2 * slowest + 1e-9


def test_a_donor_twice_as_fast_gets_twice_as_much() -> None:
    plan = checked_pull(60 * MIB, MIB, [DonorLink("a", 10e6), DonorLink("b", 20e6)])
    assert plan.counts == {"a": 20, "b": 40}
    assert plan.ranges == {"a": (0, 20), "b": (20, 60)}
    assert plan.makespan_s == pytest.approx(plan.bound_s)
    assert plan.makespan_s == pytest.approx(40 * MIB / 20e6)


def test_a_donor_that_is_late_or_slow_is_left_out() -> None:
    donors = [DonorLink("a", 1e8), DonorLink("late", 1e8, release_s=60), DonorLink("slow", 1e3)]
    assert checked_pull(8 * MIB, MIB, donors).counts == {"a": 8, "late": 0, "slow": 0}


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused_by_name(rate: float) -> None:
    with pytest.raises(ConfigError, match="donor alpha"):
        DonorLink("alpha", rate)


@pytest.mark.parametrize("field", ["release_s", "overhead_s"])
def test_negative_times_are_refused(field: str) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        DonorLink("alpha", 1.0, **{field: -1.0})


@pytest.mark.parametrize(
    ("total", "shard", "names"),
    [(10, 0, "a"), (10, -1, "a"), (10, 11, "a"), (0, 1, "a"), (10, 1, ""), (10, 1, "aa")],
)
def test_what_cannot_be_planned_is_refused(total: int, shard: int, names: str) -> None:
    with pytest.raises(ConfigError):
        checked_pull(total, shard, [DonorLink(name, 1.0) for name in names])


@pytest.mark.parametrize(
    ("total", "size"),
    [
        (1, 64 << 10),
        (1 << 20, 64 << 10),
        (32 * MIB, 128 << 10),
        (250_000_000, 512 << 10),
        (256 * MIB, MIB),
        (1024 * MIB, 4 * MIB),
        (1 << 40, 4 * MIB),
    ],
)
def test_shards_are_as_large_as_256_of_them_allow(total: int, size: int) -> None:
    assert choose_shard_bytes(total) == size


@given(
    instances,
    st.floats(0.05, 2),
    st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=4),
)
def test_an_ingress_cap_is_kept_and_in_the_fluid_costs_nothing(
    instance: tuple[int, int, list[tuple[float, float, float]]],
    share: float,
    releases: list[float],
) -> None:
    shard_bytes, shards, figures = instance
    donors = [
        DonorLink(f"d{i}", rate, release)
        for i, ((rate, _, _), release) in enumerate(zip(figures, releases, strict=False))
    ]
    total, cap = shards * shard_bytes, share * sum(rate for rate, _, _ in figures)
    fed = feed(donors, cap)
    assert sum(fed) <= cap * (1 + 1e-9)
    assert all(0 <= rate <= d.rate_bytes_per_s for rate, d in zip(fed, donors, strict=True))
    plan = checked_pull(total, shard_bytes, donors, cap)
    begins = [d.release_s for d in donors]
    assert plan.bound_s == pytest.approx(fluid(total, fed, begins))
    longest = max(shard_bytes / rate for rate in fed if rate > 0)
    assert plan.bound_s * (1 - 1e-9) <= plan.makespan_s <= (plan.bound_s + longest) * (1 + 1e-9)


def test_donors_released_together_share_a_cap_fairly_and_late_ones_get_the_rest() -> None:
    donors = [DonorLink("late", 50.0, 1.0), DonorLink("a", 20.0), DonorLink("b", 100.0)]
    assert feed(donors, 90.0) == [0.0, 20.0, 70.0]
    assert feed(donors, 150.0) == [30.0, 20.0, 100.0]
    assert checked_pull(900, 1, donors, 90.0).counts == {"late": 0, "a": 200, "b": 700}


def test_a_cap_that_nobody_reaches_changes_nothing() -> None:
    donors = [DonorLink("a", 10e6, 0.1, 0.01), DonorLink("b", 20e6)]
    assert checked_pull(60 * MIB, MIB, donors, 30e6) == checked_pull(60 * MIB, MIB, donors)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=8), st.floats(0.1, 1e3))
def test_fair_shares_spend_the_budget_and_only_the_satisfied_get_less_than_others(
    wanted: list[float], budget: float
) -> None:
    shares = max_min(wanted, budget)
    assert sum(shares) == pytest.approx(min(budget, sum(wanted)))
    for share, want in zip(shares, wanted, strict=True):
        assert share == want or share >= max(shares) * (1 - 1e-9)


def test_fair_shares_follow_weights() -> None:
    assert max_min([100, 100, 1], 31, [1, 2, 1]) == [10, 20, 1]


def test_a_donor_sends_what_its_link_and_card_allow_after_a_round_trip() -> None:
    graph = Graph(
        ("a", "b", "c", "new"),
        {
            ("a", "new"): Link(80, 5),
            ("b", "new"): Link(80, 10),
            ("new", "c"): Link(80, 10),
        },
        {"b": Cap(up_mbit=40)},
    )
    assert donors_of(graph, "new", ("a", "b", "c"), {"a": 0.1}, 0.001) == [
        DonorLink("a", 10e6, 0.1 + 0.01, 0.001),
        DonorLink("b", 5e6, 0.02, 0.001),
    ]


def test_a_newcomer_that_nobody_reaches_is_refused_by_name() -> None:
    graph = Graph(("a", "new"), {("new", "a"): Link(80, 5)})
    with pytest.raises(ConfigError, match="newcomer new is disconnected"):
        donors_of(graph, "new", ("a",), {})


@pytest.mark.parametrize("cap", [0.0, -1.0, math.nan])
def test_a_newcomer_that_takes_in_nothing_is_refused(cap: float) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        checked_pull(10, 1, [DonorLink("a", 1.0)], cap)


def test_the_worked_example_of_the_documents_is_right() -> None:
    page = Path(__file__).parent.parent / "docs/planning.md"
    done = doctest.testfile(str(page), module_relative=False)
    assert done.attempted == 5
    assert done.failed == 0
