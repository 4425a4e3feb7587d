"""The oracle and the greedy agree.

Every instance starts a solver process, some ten milliseconds each: the 300 take about five seconds.
"""

from __future__ import annotations

import random
import sys
from typing import get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from optimality import check_rules, checked_pull

from lightning_chaos.errors import ConfigError, PlanError
from lightning_chaos.planning.chain import plan_over_chain
from lightning_chaos.planning.milp import Solver, prove, solvers
from lightning_chaos.planning.pull import DonorLink

# Whole numbers, within what solvers can tell apart (their tolerance is a millionth).
donor_lists = st.lists(
    st.builds(
        lambda rate, release, overhead: (rate * 1e5, release / 100, overhead / 1000),
        st.integers(1, 100),
        st.integers(0, 200),
        st.integers(0, 50),
    ),
    min_size=1,
    max_size=5,
).map(lambda rows: [DonorLink(f"d{i}", *row) for i, row in enumerate(rows)])

# The next best plan takes 5e-6 more.
NEARLY_AS_GOOD = [
    DonorLink(f"d{i}", *row)
    for i, row in enumerate(
        [(1e5, 0.0, 0.0), (2e5, 0.0, 0.0), (9e5, 0.01, 0.007), (2.1e6, 0.42, 0.003), (5.4e6, 1.39)]
    )
]

PATIENT = (HealthCheck.too_slow,)


def bring(solver: Solver) -> Solver:
    """That solver; a test is skipped only if what brings it is not installed."""
    if solver == "highs":
        pytest.importorskip("highspy", reason="HiGHS is not installed (extra `exact` brings it)")
    return solver


@settings(max_examples=200, suppress_health_check=PATIENT)
@given(st.integers(1 << 16, 200 << 16), donor_lists)
@example(6_225_921, NEARLY_AS_GOOD)
def test_the_greedy_is_the_programs_optimum_for_one_size(
    total: int, donors: list[DonorLink]
) -> None:
    best = prove(total, [1 << 16], donors)
    assert checked_pull(total, 1 << 16, donors).makespan_s == pytest.approx(
        best.makespan_s, rel=1e-6
    )
    assert sum(best.counts.values()) == -(-total // (1 << 16))


@settings(max_examples=100, suppress_health_check=PATIENT)
@given(st.integers(1 << 16, 50 << 16), st.integers(1, 4), donor_lists)
def test_the_scan_is_the_programs_optimum_over_all_sizes(
    total: int, sizes: int, donors: list[DonorLink]
) -> None:
    chain = [(1 << 16) >> i for i in range(sizes)]
    best = prove(total, chain, donors)
    plan = plan_over_chain(total, chain, donors)
    check_rules(plan, donors)
    assert plan.makespan_s == pytest.approx(best.makespan_s, rel=1e-6)


@pytest.mark.parametrize("solver", get_args(Solver))
def test_a_solver_that_is_asked_for_is_the_one_that_proves(solver: Solver) -> None:
    donors = [DonorLink("a", 1e6, 0.0, 0.01), DonorLink("b", 3e6, 0.5), DonorLink("c", 1e3)]
    best = prove(100 << 16, [1 << 16, 1 << 15], donors, solver=bring(solver))
    plan = plan_over_chain(100 << 16, [1 << 16, 1 << 15], donors)
    assert best.solver == solver
    assert best.makespan_s == pytest.approx(plan.makespan_s)
    assert best.shard_bytes == plan.shard_bytes
    assert best.counts["c"] == 0


def test_the_other_solver_finds_the_same_on_many_instances() -> None:
    solver = bring("highs")
    rng = random.Random(20264)
    for _ in range(40):
        donors = [
            DonorLink(f"d{i}", rng.randint(1, 100) * 1e5, rng.random(), rng.randint(0, 50) / 1e3)
            for i in range(rng.randint(1, 4))
        ]
        total, chain = rng.randint(1 << 16, 50 << 16), [1 << 16, 1 << 15]
        best = prove(total, chain, donors, solver=solver)
        plan = plan_over_chain(total, chain, donors)
        assert plan.makespan_s == pytest.approx(best.makespan_s, rel=1e-6), donors


@pytest.mark.parametrize("module", ["highspy", "pulp"])
def test_what_the_extra_brings_is_offered(module: str) -> None:
    pytest.importorskip(module)
    assert {"highspy": "highs", "pulp": "cbc"}[module] in solvers()


@pytest.mark.parametrize("solver", get_args(Solver))
def test_what_is_not_proved_within_the_limit_does_not_count(solver: Solver) -> None:
    donors = [DonorLink(f"d{i}", 1e6 + 7919.3 * i, i * 0.0137, 1e-3) for i in range(40)]
    chain = [(1 << 22) >> i for i in range(7)]
    with pytest.raises(PlanError, match="has not proved"):
        prove(997_000_000, chain, donors, solver=bring(solver), limit_s=0.01)


def test_without_pulp_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pulp", None)
    with pytest.raises(ConfigError, match=r"lightning-chaos\[exact\]"):
        prove(10, [1], [DonorLink("a", 1.0)])


def test_a_solver_that_is_not_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import pulp

    monkeypatch.setattr(pulp, "listSolvers", lambda onlyAvailable: [])
    with pytest.raises(ConfigError, match="solver highs is not here"):
        prove(10, [1], [DonorLink("a", 1.0)], solver="highs")
