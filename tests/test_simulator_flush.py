"""Each branch of the flush decision, in simulated runs: whose contributions count in the end.

Faults fall into the middle of a round.  What training has of the operation afterwards is compared
with what the frozen members had reported of it; all else that a run promises is checked on the way.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import pytest
from simulator_stage import Stage

from lightning_chaos.protocol import flush, proposer
from lightning_chaos.protocol.values import Decision, OpId, Report, Uid, View
from lightning_chaos.testing.simulator import Fault
from lightning_chaos.testing.simulator.faults import set_up

SEEDS = 200
ENOUGH = 3
"""So many runs of a branch must be found among the seeds."""

Reports = Mapping[Uid, Report]


class Branch(enum.Enum):
    """What the frozen members do with the operation they were in."""

    PASSED_TO_THOSE_BEHIND = "somebody has finished it: the others get its results"
    STANDS = "the members together hold all results: they are passed on"
    REST_DONE_AGAIN = "same members, same plan: only what nobody holds is done again"
    DONE_AGAIN = "all of it is done again"
    NONE = "nobody was in one, or not all of them"


def branch_of(reports: Reports, view: View, decision: Decision) -> Branch:
    """Which one was taken."""
    told = [reports[uid] for uid in view.uids]
    if decision.behind:
        return Branch.PASSED_TO_THOSE_BEHIND
    if any(report.current is None for report in told):
        return Branch.NONE
    if not decision.held:
        return Branch.DONE_AGAIN
    whole = len(decision.held) == told[0].chunks
    return Branch.STANDS if whole else Branch.REST_DONE_AGAIN


def strike(stage: Stage, branch: Branch) -> None:
    """Do what may lead to that branch, in the middle of a round."""
    if branch is Branch.STANDS:
        for count in stage.world.clock.rng.sample(range(1, 8), 3):
            set_up(stage.world, Fault(0.0, "cut", "a", "b", 3.0, after="RESULT", count=count))
        stage.run(4.0)
    else:
        stage.run(stage.world.clock.rng.uniform(0.0, 0.5))
        rest = branch is Branch.REST_DONE_AGAIN
        stage.strike(*(("blip_data", "b", "c") if rest else ("kill", "d")))


def operation(reports: Reports, view: View, decision: Decision) -> tuple[OpId, set[Uid]]:
    """The operation in question, and who must have contributed to it in the end."""
    branch = branch_of(reports, view, decision)
    of = reports[decision.behind[0] if decision.behind else view.uids[0]]  # all are in the same
    assert of.current is not None
    return of.current, set(view.uids if branch is Branch.DONE_AGAIN else of.contributors)


def contributors(stage: Stage, op: OpId) -> list[set[Uid]]:
    """Whose contributions each member has in that operation."""
    histories = (node.worker.training.history for node in stage.world.invariants.members())
    return [set(history[op][1]) for history in histories if op in history]


@pytest.mark.parametrize("branch", [b for b in Branch if b is not Branch.NONE])
def test_the_right_contributions_count_after_each_branch(
    branch: Branch, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[Reports, View, Decision]] = []

    def decide(reports: Reports, view: View) -> Decision:
        decision = flush.decide(reports, view)
        taken.append((reports, view, decision))
        return decision

    monkeypatch.setattr(proposer, "decide", decide)
    found = 0
    for seed in range(SEEDS):
        stage = Stage("abcd", seed=seed, founders=4)
        taken.clear()
        strike(stage, branch)
        stage.heal()
        if not taken or branch_of(*taken[0]) is not branch:
            continue
        op, wanted = operation(*taken[0])
        of = contributors(stage, op)
        assert len(of) >= 3, f"seed {seed}: members lack {op}"
        assert all(uids == wanted for uids in of), f"seed {seed}: {op} is of {of}, not {wanted}"
        found += 1
        if found == ENOUGH:
            return
    pytest.fail(f"only {found} of {SEEDS} seeds are like that")
