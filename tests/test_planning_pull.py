"""The pull schedule: earliest-completion greedy against brute force and the theory."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning.pull import DonorLink, PullPlan, choose_shard_bytes, plan_pull

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


def donors_of(figures: list[tuple[float, float, float]]) -> list[DonorLink]:
    return [DonorLink(f"d{i}", *figure) for i, figure in enumerate(figures)]


def completion(plan: PullPlan, donor: DonorLink, extra: int = 0) -> float:
    return donor.release_s + (plan.counts[donor.name] + extra) * donor.shard_s(plan.shard_bytes)


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
    donors = donors_of(figures)
    plan = plan_pull(shards * shard_bytes, shard_bytes, donors)
    assert plan.makespan_s == pytest.approx(brute_force(shards, shard_bytes, donors))


@given(instances)
def test_the_makespan_is_the_kth_smallest_completion(
    instance: tuple[int, int, list[tuple[float, float, float]]],
) -> None:
    shard_bytes, shards, figures = instance
    donors = donors_of(figures)
    completions = sorted(
        d.release_s + j * d.shard_s(shard_bytes) for d in donors for j in range(1, shards + 1)
    )
    plan = plan_pull(shards * shard_bytes, shard_bytes, donors)
    assert plan.makespan_s == completions[shards - 1]


@given(instances)
def test_no_shard_would_be_earlier_as_the_next_of_another_donor(
    instance: tuple[int, int, list[tuple[float, float, float]]],
) -> None:
    shard_bytes, shards, figures = instance
    donors = donors_of(figures)
    plan = plan_pull(shards * shard_bytes, shard_bytes, donors)
    used = [d for d in donors if plan.counts[d.name]]
    assert max(completion(plan, d) for d in used) <= min(completion(plan, d, 1) for d in donors)


@given(instances, st.integers(0, 1 << 20))
def test_ranges_cover_every_shard_once_and_no_plan_beats_the_fluid_bound(
    instance: tuple[int, int, list[tuple[float, float, float]]], short: int
) -> None:
    shard_bytes, shards, figures = instance
    total = shards * shard_bytes - short % shard_bytes
    if total < shard_bytes:
        total = shard_bytes
    plan = plan_pull(total, shard_bytes, donors_of(figures))
    covered = [index for first, end in plan.ranges.values() for index in range(first, end)]
    assert covered == list(range(plan.shards))
    assert {name: end - first for name, (first, end) in plan.ranges.items()} == plan.counts
    assert plan.bound_s <= plan.makespan_s * (1 + 1e-9)
    slowest = max(d.shard_s(shard_bytes) for d in donors_of(figures))
    assert plan.makespan_s <= plan.bound_s + 2 * slowest + 1e-9


def test_a_donor_twice_as_fast_gets_twice_as_much() -> None:
    plan = plan_pull(60 * MIB, MIB, [DonorLink("a", 10e6), DonorLink("b", 20e6)])
    assert plan.counts == {"a": 20, "b": 40}
    assert plan.ranges == {"a": (0, 20), "b": (20, 60)}
    assert plan.makespan_s == pytest.approx(plan.bound_s)
    assert plan.makespan_s == pytest.approx(40 * MIB / 20e6)


def test_a_donor_that_is_late_or_slow_is_left_out() -> None:
    donors = [DonorLink("a", 1e8), DonorLink("late", 1e8, release_s=60), DonorLink("slow", 1e3)]
    assert plan_pull(8 * MIB, MIB, donors).counts == {"a": 8, "late": 0, "slow": 0}


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
        plan_pull(total, shard, [DonorLink(name, 1.0) for name in names])


@pytest.mark.parametrize(
    ("total", "size"),
    [
        (1, 64 << 10),
        (1 << 20, 64 << 10),
        (8 * MIB, 128 << 10),
        (64_000_000, 512 << 10),
        (64 * MIB, MIB),
        (256 * MIB, 4 * MIB),
        (1 << 40, 4 * MIB),
    ],
)
def test_shards_are_as_large_as_64_of_them_allow(total: int, size: int) -> None:
    assert choose_shard_bytes(total) == size
