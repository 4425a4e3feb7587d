"""The pull schedule as a mixed-integer program: an oracle, never on the way of a join.

For a shard of ``s`` bytes: minimise T over integer counts ``n_i`` >= 0 and ``y_i`` in {0, 1} with

    sum n_i = K,    r_i * y_i + p_i * n_i <= T,    n_i <= K * y_i.

For a chain of sizes ``s_j``, counts ``n_ij`` and one choice ``z_j`` in {0, 1} of a size:

    sum_j z_j = 1,    sum_i n_ij = K_j * z_j,
    r_i * y_i + sum_j p_ij * n_ij <= T,    sum_j n_ij / K_j <= y_i.

The second is the paper's program (*Learning in Chaos*, arXiv 2505.12815), whose products of count
and size are gone because sizes are few; the first is the second for one size.  PuLP states it, its
CBC solves it, or HiGHS by `highspy`.  Both say "optimal" when they only ran out of time, so nothing
counts but a proof.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from lightning_chaos.errors import ConfigError, PlanError
from lightning_chaos.planning.chain import check_chain
from lightning_chaos.planning.pull import DonorLink, plan_pull

Solver = Literal["cbc", "highs"]
_NAMES: dict[Solver, str] = {"cbc": "PULP_CBC_CMD", "highs": "HiGHS"}
"""What PuLP calls them."""


class Proved(msgspec.Struct, frozen=True):
    """A schedule that a solver has proved to be the best of all."""

    shard_bytes: int
    counts: dict[str, int]
    """Shards per donor."""
    makespan_s: float
    """Calculated from the counts, not read from the solver."""
    solver: Solver
    """Who proved it."""


def solvers() -> tuple[Solver, ...]:
    """The solvers that are here, the quicker one for these programs first.

    Raises:
        ConfigError: PuLP is not installed.
    """
    pulp = _pulp()
    here = pulp.listSolvers(onlyAvailable=True)
    return tuple(solver for solver, name in _NAMES.items() if name in here)


def prove(
    total_bytes: int,
    sizes: Sequence[int],
    donors: Sequence[DonorLink],
    *,
    solver: Solver | None = None,
    limit_s: float = 60.0,
) -> Proved:
    """The best schedule over all these shard sizes, proved.

    Args:
        total_bytes: bytes to pull.
        sizes: bytes per shard, a divisibility chain or one size.
        donors: who sends, how fast; a receiver's cap must already be shared out among them.
        solver: which one; the first that is here if not given.
        limit_s: longest time it may take, seconds.

    Raises:
        ConfigError: PuLP or the solver is not installed, or what cannot be planned.
        PlanError: the solver has not proved its solution within the limit.
    """
    check_chain(sizes)
    # The greedy's time only scales the numbers: it counts as a thousand, since CBC passes over what
    # is better by less than 1e-5.
    scale_s = plan_pull(total_bytes, sizes[0], donors).makespan_s / 1000
    pulp = _pulp()
    with warnings.catch_warnings():
        # of what changes in PuLP 4, which has no solver of its own and is not asked for
        warnings.simplefilter("ignore", DeprecationWarning)
        program, counts = _state(pulp, total_bytes, sizes, donors, scale_s)
        engine = _engine(pulp, solver, limit_s)
        program.solve(engine)
    if program.sol_status != pulp.LpSolutionOptimal:
        raise PlanError(
            f"{engine.name} has not proved the best schedule within {limit_s:g} s "
            f"({pulp.LpSolution[program.sol_status]}); give it more time or fewer donors"
        )
    for size, column in zip(sizes, counts, strict=True):
        solved = [round(count.value()) for count in column]
        if sum(solved):
            return Proved(
                shard_bytes=size,
                counts={donor.name: n for donor, n in zip(donors, solved, strict=True)},
                makespan_s=max(
                    donor.release_s + n * donor.shard_s(size)
                    for donor, n in zip(donors, solved, strict=True)
                    if n
                ),
                solver=next(one for one, name in _NAMES.items() if name == engine.name),
            )
    raise PlanError(f"{engine.name} calls a schedule the best that sends nothing: it is broken")


def _state(
    pulp: Any, total_bytes: int, sizes: Sequence[int], donors: Sequence[DonorLink], scale_s: float
) -> tuple[Any, list[list[Any]]]:
    """The program, and its counts: one list per size, in it one variable per donor."""
    program = pulp.LpProblem("pull", pulp.LpMinimize)
    makespan = pulp.LpVariable("T", lowBound=0)
    program += makespan
    numbers = range(len(donors))
    used = [pulp.LpVariable(f"y_{i}", cat="Binary") for i in numbers]
    chosen = [pulp.LpVariable(f"z_{j}", cat="Binary") for j in range(len(sizes))]
    shards = [-(-total_bytes // size) for size in sizes]
    counts = [
        [pulp.LpVariable(f"n_{i}_{j}", 0, most, cat="Integer") for i in numbers]
        for j, most in enumerate(shards)
    ]
    program += pulp.lpSum(chosen) == 1
    for column, most, choice in zip(counts, shards, chosen, strict=True):
        program += pulp.lpSum(column) == most * choice
    for i, donor in enumerate(donors):
        busy = pulp.lpSum(
            donor.shard_s(size) / scale_s * column[i]
            for size, column in zip(sizes, counts, strict=True)
        )
        program += donor.release_s / scale_s * used[i] + busy <= makespan
        sends = (column[i] * (1 / most) for column, most in zip(counts, shards, strict=True))
        program += pulp.lpSum(sends) <= used[i]
    return program, counts


def _engine(pulp: Any, solver: Solver | None, limit_s: float) -> Any:
    here = solvers()
    if not here or solver not in (*here, None):
        raise ConfigError(
            f"the solver {solver or 'cbc'} is not here; pip install 'lightning-chaos[exact]' "
            "brings CBC and HiGHS"
        )
    make = getattr(pulp, _NAMES[solver or here[0]])
    return make(msg=False, timeLimit=limit_s, gapRel=0.0, gapAbs=0.0)


def _pulp() -> Any:
    """PuLP, which only this file knows."""
    try:
        import pulp
    except ImportError:
        raise ConfigError(
            "the exact schedule needs PuLP: pip install 'lightning-chaos[exact]'"
        ) from None
    return pulp
