"""How long a worker may be waited for, compared with its own past."""

from __future__ import annotations

from lightning_chaos.worker.allowance import LEAST_S, TIMES, Allowance


class Training:
    """Rounds, each with one operation, on a clock of their own."""

    def __init__(self, given_s: float | None) -> None:
        self.allowance = Allowance(given_s)
        self.now = 0.0

    def round(self, work_s: float, *, waits_s: float = 0.0, after_s: float = 0.0) -> None:
        """Wait for the turn, work, wait for the others; then something else."""
        self.allowance.waits(self.now, in_round=False)
        self.begin()
        self.now += work_s
        self.allowance.waits(self.now, in_round=True)
        self.now += waits_s
        self.allowance.works(self.now, in_round=False)
        self.now += after_s

    def begin(self) -> None:
        self.allowance.works(self.now, in_round=True)

    def seconds(self) -> float:
        return self.allowance.seconds(self.now)


def test_a_first_round_may_take_long() -> None:
    training = Training(None)
    assert training.seconds() == TIMES * LEAST_S
    training.round(work_s=60.0)
    assert training.seconds() == TIMES * LEAST_S
    training.begin()
    assert training.seconds() == LEAST_S, "the first round is no measure of the others"


def test_a_round_may_take_a_multiple_of_the_longest_of_its_own() -> None:
    training = Training(None)
    for work_s in (1.0, 2.0, 20.0, 3.0):
        training.round(work_s)
    training.begin()
    assert training.seconds() == TIMES * 20.0


def test_waits_for_others_do_not_count() -> None:
    training = Training(None)
    for _ in range(3):
        training.round(work_s=1.0, waits_s=500.0)
    training.allowance.waits(training.now, in_round=False)
    training.now += 900.0
    training.begin()
    assert training.seconds() == LEAST_S


def test_validation_and_checkpoints_may_take_longer_than_rounds() -> None:
    training = Training(2.0)
    training.round(work_s=1.0)
    training.round(work_s=1.0, after_s=0.1)
    assert training.seconds() == 2.0, "rounds follow each other"
    training.now += 1.0
    assert training.seconds() == 20.0, "it lasts"
    training.now += 98.9
    training.round(work_s=1.0)
    training.now += 1.0
    assert training.seconds() == 1000.0, "it has lasted that long before"


def test_what_the_user_has_set_for_a_round_stays() -> None:
    training = Training(2.0)
    for work_s in (1.0, 1.5, 1.9):
        training.round(work_s)
    training.begin()
    assert training.seconds() == 2.0
