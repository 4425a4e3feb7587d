"""What a failing seed prints is the least that fails, and can be pasted."""

from __future__ import annotations

import pytest

from lightning_chaos.protocol import change
from lightning_chaos.testing.simulator import Case, Fault, draw, shrink, simulate


@pytest.fixture
def _any_who_answer_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol that splits at every cut."""
    monkeypatch.setattr(change, "may_commit", lambda last, acks, dead: (True, ""))


@pytest.mark.usefixtures("_any_who_answer_are_enough")
def test_a_failing_case_shrinks_to_its_cause() -> None:
    noise = tuple(Fault(0.5 + i / 2, "blip", "d", "e") for i in range(6))
    split = Fault(4.0, "isolate", "a", seconds=3.0)
    case = Case(3, "abcde", (*noise, split), ends=True)
    assert simulate(case).problem
    least = shrink(case)
    assert simulate(least).problem
    assert len(least.names) <= 3
    assert len(least.faults) <= 1
    assert not least.ends


@pytest.mark.usefixtures("_any_who_answer_are_enough")
def test_a_failing_case_is_printed_as_a_line_to_paste() -> None:
    failing = next(s for s in range(50) if simulate(draw(s), story=False).problem)
    least = shrink(draw(failing))
    told = str(simulate(least)).splitlines()
    pasted = eval(told[-2], {"Case": Case, "Fault": Fault})  # it is our own repr
    assert pasted == least
    assert simulate(pasted).problem == told[-1]


def test_a_case_without_a_problem_is_left_as_it_is() -> None:
    case = Case(1, "ab")
    assert shrink(case) is case


def test_an_unknown_fault_is_named() -> None:
    outcome = simulate(Case(1, "ab", (Fault(1.0, "flood", "a"),)))
    assert "no fault is called 'flood'" in outcome.problem
