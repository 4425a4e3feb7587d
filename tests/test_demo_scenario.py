"""The demo's course: orders follow from what the nodes log, and from nothing else."""

from __future__ import annotations

from typing import Any

from lightning_chaos.demo.scenario import Order, Pace, Scenario
from lightning_chaos.monitor.runlog import LogEvent

PACE = Pace(join_at=3, after_join=4, after_kill=5, after_leave=6)


def event(name: str, **fields: Any) -> LogEvent:
    return LogEvent(0.0, "n1", name, fields)


class Play:
    """Feeds a scenario with rounds and views until it gives an order."""

    def __init__(self, founders: list[str], newcomer: str) -> None:
        self.scenario = Scenario(founders, newcomer, PACE)
        self.epoch = 0
        self.round = -1

    def view(self, *members: str) -> list[Order]:
        self.epoch += 1
        return self.scenario.step([event("view", epoch=self.epoch, members=list(members))])

    def done(self) -> bool:
        return self.scenario.done

    def rounds(self, most: int) -> tuple[int, list[Order]]:
        """Rounds until an order came, at most that many; and the orders."""
        for count in range(1, most + 1):
            self.round += 1
            if orders := self.scenario.step([event("round", round=self.round, epoch=self.epoch)]):
                return count, orders
        return most, []


def test_three_nodes_join_kill_leave_and_stop_in_that_order() -> None:
    play = Play(["n1", "n2", "n3"], "n4")
    assert play.view("n1") == []
    assert play.view("n1", "n2", "n3") == []
    assert play.rounds(50) == (50, [])
    assert "n4 to be admitted" in play.scenario.waiting_for
    assert play.view("n1", "n2", "n3", "n4") == []
    assert play.rounds(50) == (1 + PACE.after_join, [Order("kill", "n1")])
    assert play.rounds(50) == (50, [])
    assert "a view without n1" in play.scenario.waiting_for
    assert play.view("n2", "n3", "n4") == []
    assert play.rounds(50) == (1 + PACE.after_kill, [Order("leave", "n3")])
    assert play.view("n2", "n4") == []
    assert not play.done()
    assert play.rounds(50) == (1 + PACE.after_leave, [Order("stop", "")])
    assert play.done()
    assert play.rounds(50) == (50, [])


def test_two_nodes_are_too_few_for_a_leave_after_the_kill() -> None:
    play = Play(["n1", "n2"], "n3")
    play.view("n1", "n2")
    play.rounds(5)
    play.view("n1", "n2", "n3")
    assert play.rounds(50) == (1 + PACE.after_join, [Order("kill", "n1")])
    play.view("n2", "n3")
    assert play.rounds(50) == (1 + PACE.after_kill, [Order("stop", "")])


def test_the_oldest_of_the_latest_view_is_killed_and_never_the_newcomer_sent_away() -> None:
    play = Play(["n1", "n2", "n3"], "n4")
    play.rounds(1)
    play.view("n3", "n1", "n2", "n4")
    assert play.rounds(50)[1] == [Order("kill", "n3")]
    play.view("n1", "n2", "n4")
    assert play.rounds(50)[1] == [Order("leave", "n2")]


def test_an_old_view_that_arrives_late_changes_nothing() -> None:
    play = Play(["n1", "n2", "n3"], "n4")
    play.rounds(1)
    play.view("n1", "n2", "n3", "n4")
    play.scenario.step([event("view", epoch=0, members=["n9"])])
    assert play.rounds(50)[1] == [Order("kill", "n1")]
