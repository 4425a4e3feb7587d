"""What is measured of the links: in steps that travel, checked where they come in."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.errors import WireError
from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Graph, Link
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.figures import (
    MOST_MEMBERS,
    RATE_UNIT,
    TRIP_UNIT_S,
    Figures,
    step_of,
    value_of,
)
from lightning_chaos.protocol.messages import LinkFigures, Status, decode, encode
from lightning_chaos.protocol.replanning import Replanning
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.trips import Trips
from lightning_chaos.protocol.values import Member, View

RATES = st.floats(1e3, 1e11)


def view(*names: str, missing: tuple[tuple[str, str], ...] = ()) -> View:
    members = tuple(Member(name, 1, "127.0.0.1", 1) for name in names)
    return View("r", 0, 1, members, (), 0, mesh_plan([m.uid for m in members]), missing)


ABC = view("a", "b", "c")


@given(RATES)
def test_a_step_is_within_five_parts_in_a_hundred_of_the_figure(rate: float) -> None:
    assert value_of(step_of(rate, RATE_UNIT), RATE_UNIT) == pytest.approx(rate, rel=0.05)


@given(RATES, st.floats(0.97, 1.03))
def test_what_changes_by_chance_is_not_told(rate: float, noise: float) -> None:
    step = step_of(rate, RATE_UNIT)
    told = value_of(step, RATE_UNIT)
    assert step_of(told * noise, RATE_UNIT, step) == step


@given(RATES)
def test_what_halves_is_told(rate: float) -> None:
    step = step_of(2 * rate, RATE_UNIT)
    assert step_of(rate, RATE_UNIT, step) < step


def test_the_slowest_and_fastest_are_told_as_the_last_steps() -> None:
    assert step_of(1e-9, TRIP_UNIT_S) == 1
    assert step_of(1e300, RATE_UNIT) == 255


def test_a_row_takes_two_bytes_or_three_for_each_member() -> None:
    row = LinkFigures(7, (118,) * 1000, (60,) * 1000)
    assert len(encode(row)) < 2100


def test_what_is_being_worked_out_is_not_asked_again() -> None:
    replanning, link = Replanning(Timeouts(1.0)), Link(100, 1)
    graph = Graph(ABC.uids, {(a, b): link for a in ABC.uids for b in ABC.uids if a != b})
    assert replanning.ask(ABC, graph, 1 << 20) is not None
    assert replanning.ask(ABC, graph, 1 << 20) is None
    assert replanning.ask(ABC, graph, 1 << 21) is not None


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_an_allowance_that_cannot_be_is_refused(seconds: float) -> None:
    with pytest.raises(WireError):
        decode(encode(Status(1, 0, -1, allows=seconds)))


@pytest.mark.parametrize("step", [-1, 256, 1.5, math.nan, "x", None])
def test_a_step_that_there_is_not_is_no_message(step: object) -> None:
    data = msgspec.msgpack.encode(["LinkFigures", 1, [0, step], [0, 0]])
    with pytest.raises(WireError):
        decode(data)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_rate_is_left_out_with_a_reason(rate: float) -> None:
    figures = Figures("a/1", Trips())
    assert "is not a rate" in figures.measured({"b/1": rate}, ABC)
    assert not figures.knows_rates


@pytest.mark.parametrize("uid", ["a/1", "d/1"])
def test_a_rate_from_oneself_or_a_stranger_is_left_out_with_a_reason(uid: str) -> None:
    figures = Figures("a/1", Trips())
    assert "no other member" in figures.measured({uid: 1e6}, ABC)
    assert not figures.knows_rates


@pytest.mark.parametrize(
    ("sender", "row", "reason"),
    [
        ("d/1", LinkFigures(1, (0, 9, 9), (0, 9, 9)), "no member"),
        ("b/1", LinkFigures(2, (9, 0, 9), (9, 0, 9)), "epoch 2"),
        ("b/1", LinkFigures(1, (9, 0), (9, 0)), "2 links"),
        ("b/1", LinkFigures(1, (9, 0, 9), (9, 0)), "links"),
    ],
)
def test_a_row_that_cannot_be_is_refused_with_a_reason(
    sender: str, row: LinkFigures, reason: str
) -> None:
    figures = Figures("a/1", Trips())
    assert reason in figures.told(sender, row, ABC)
    assert figures.graph(ABC) is None


def told(view: View, rate: float, trip_s: float) -> Figures:
    """As the lead knows them when all have told the same of all."""
    figures, count = Figures("a/1", Trips()), len(view.uids)
    rates = (step_of(rate, RATE_UNIT),) * count
    trips = (step_of(trip_s, TRIP_UNIT_S),) * count
    for uid in view.uids:
        assert figures.told(uid, LinkFigures(view.epoch, rates, trips), view) == ""
    return figures


def test_the_graph_has_every_link_of_the_view_both_ways() -> None:
    graph = told(ABC, 25e6, 0.02).graph(ABC)
    assert graph is not None
    assert len(graph.links) == 6
    link = graph.links["a/1", "b/1"]
    assert link.rate_mbit == pytest.approx(25e6 / BYTES_PER_S_PER_MBIT, rel=0.05)
    assert link.latency_ms == pytest.approx(10, rel=0.05)


def test_a_link_that_the_view_lacks_needs_no_figures() -> None:
    apart = view("a", "b", "c", missing=(("a/1", "b/1"),))
    graph = told(ABC, 25e6, 0.02).graph(apart)
    assert graph is not None
    assert ("a/1", "b/1") not in graph.links
    assert len(graph.links) == 4


def test_there_is_no_graph_while_a_figure_is_not_known() -> None:
    figures = told(ABC, 25e6, 0.02)
    assert figures.graph(view("a", "b", "c", "d")) is None


def test_there_is_no_graph_of_too_many() -> None:
    many = view(*(f"n{i}" for i in range(MOST_MEMBERS + 1)))
    assert told(many, 25e6, 0.02).graph(many) is None


def test_who_goes_takes_its_links_along() -> None:
    figures = told(ABC, 25e6, 0.02)
    figures.keep_only({"a/1", "b/1"})
    assert figures.graph(view("a", "b")) is not None
    assert figures.graph(ABC) is None
