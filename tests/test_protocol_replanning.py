"""When a better plan is worth a change of the view: time is a number here."""

from __future__ import annotations

import msgspec
import pytest

from lightning_chaos.planning.graph import Graph, Link
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.planning.values import ReducePlan, Tree
from lightning_chaos.protocol.events import Replanned
from lightning_chaos.protocol.replanning import Replanning
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Member, View

MEMBERS = tuple(Member(name, 1, "127.0.0.1", 1) for name in "abc")
VIEW = View("r", 0, 1, MEMBERS, (), 0, mesh_plan([m.uid for m in MEMBERS]))
STAR = ReducePlan(3, Tree(0), 0, (Tree(0),), (1,))
LONGEST_S = 2.0
CALM_S, REST_S = 5 * LONGEST_S, 30 * LONGEST_S


class Lead:
    """A lead that has asked for a plan; each answer is about the same links."""

    def __init__(self) -> None:
        self.view = VIEW
        self.replanning = Replanning(Timeouts(LONGEST_S))
        self.ask()

    def ask(self) -> None:
        pairs = ((a, b) for a in VIEW.uids for b in VIEW.uids if a != b)
        self.graph = Graph(VIEW.uids, {pair: Link(100.0, 1.0) for pair in pairs})
        assert self.replanning.ask(self.view, self.graph, 1 << 20) is not None

    def hears(self, now: float, seconds: float, present_s: float) -> None:
        plan = mesh_plan(VIEW.uids) if self.view.plan == STAR else STAR
        self.replanning.answer(now, Replanned(self.graph, plan, seconds, present_s), self.view)

    def proposes(self, now: float) -> bool:
        return self.replanning.ripe(now, self.view) is not None

    def installs(self, now: float) -> None:
        new = msgspec.structs.replace(self.view, epoch=self.view.epoch + 1, plan=STAR)
        self.replanning.installed(now, new, self.view)
        self.view = new


def test_a_better_plan_is_proposed_once_it_has_been_better_for_a_while() -> None:
    lead = Lead()
    lead.hears(10.0, 0.5, 1.0)
    lead.hears(10.0 + CALM_S / 2, 0.5, 1.0)
    assert not lead.proposes(9.9 + CALM_S)
    assert lead.proposes(10.0 + CALM_S)


def test_a_plan_that_was_no_better_in_between_begins_anew() -> None:
    lead = Lead()
    lead.hears(10.0, 0.5, 1.0)
    lead.hears(11.0, 0.9, 1.0)
    lead.hears(12.0, 0.5, 1.0)
    assert not lead.proposes(11.9 + CALM_S)
    assert lead.proposes(12.0 + CALM_S)


@pytest.mark.parametrize(
    ("seconds", "present_s", "worth"),
    [
        (0.79, 1.0, True),
        (0.81, 1.0, False),
        (0.010, 0.0151, True),
        (0.010, 0.0149, False),
    ],
)
def test_a_plan_must_save_a_fifth_and_some_milliseconds(
    seconds: float, present_s: float, worth: bool
) -> None:
    lead = Lead()
    lead.hears(0.0, seconds, present_s)
    assert lead.proposes(10 * CALM_S) is worth


def test_after_a_change_of_plan_the_next_one_waits() -> None:
    lead = Lead()
    lead.installs(10.0)
    lead.ask()
    lead.hears(11.0, 0.5, 1.0)
    assert not lead.proposes(9.9 + REST_S)
    assert lead.proposes(10.0 + REST_S)
