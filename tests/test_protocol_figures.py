"""What is measured of the links: in steps that travel, checked where they come in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_chaos.errors import WireError
from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Cap, Graph, Link, counted
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.figures import MOST_MEMBERS, Figures
from lightning_chaos.protocol.messages import LinkFigures, Status, decode, encode
from lightning_chaos.protocol.readings import Reading, Trust
from lightning_chaos.protocol.replanning import Replanning
from lightning_chaos.protocol.scales import AGE, LOSS, MOST_STEPS, RATE, TRIP
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
    assert RATE.value(RATE.step(rate)) == pytest.approx(rate, rel=0.05)


@given(RATES, st.floats(0.97, 1.03))
def test_what_changes_by_chance_is_not_told(rate: float, noise: float) -> None:
    step = RATE.step(rate)
    told = RATE.value(step)
    assert RATE.step(told * noise, step) == step


@given(st.integers(2, 150), st.floats(-0.7, 0.7))
def test_a_figure_on_the_edge_of_two_steps_stays_at_the_one_told(step: int, off: float) -> None:
    assert RATE.step(RATE.value(step) * RATE.ratio**off, step) == step


@given(RATES)
def test_what_halves_is_told(rate: float) -> None:
    step = RATE.step(2 * rate)
    assert RATE.step(rate, step) < step


def test_the_slowest_and_fastest_are_told_as_the_last_steps() -> None:
    assert TRIP.step(1e-9) == 1
    assert RATE.step(1e300) == 255


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


def row_of(
    epoch: int,
    rates: Sequence[int],
    trips: Sequence[int] = (),
    trust: Trust = Trust.MEASURED,
    age_s: float = 1.0,
    card_mbit: int = 0,
) -> LinkFigures:
    """A row whose rates are all known in the same way; without round trips they are equal."""
    count = len(rates)
    return LinkFigures(
        epoch,
        tuple(rates),
        tuple(trips) or (TRIP.step(0.02),) * count,
        (trust,) * count,
        (AGE.step(age_s),) * count,
        (0,) * count,
        card_mbit,
    )


def test_a_row_takes_six_bytes_or_seven_for_each_member() -> None:
    assert len(encode(row_of(7, (118,) * 1000, (60,) * 1000))) < 6100


@pytest.mark.parametrize("step", [-1, 256, 1.5, math.nan, "x", None])
@pytest.mark.parametrize("field", range(5))
def test_a_step_that_there_is_not_is_no_message(field: int, step: object) -> None:
    row: list[object] = [[0, 0] for _ in range(5)]
    decode(msgspec.msgpack.encode(["LinkFigures", 1, *row]))
    row[field] = [0, step]
    with pytest.raises(WireError):
        decode(msgspec.msgpack.encode(["LinkFigures", 1, *row]))


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_rate_is_left_out_with_a_reason(rate: float) -> None:
    figures = Figures("a/1", Trips())
    assert "is not a rate" in figures.measured(0.0, {"b/1": Reading(rate)}, {}, ABC)
    assert not figures.knows_rates


def told_of_b(figures: Figures) -> float:
    """What it tells of the rate of what comes from b, bytes/s."""
    return RATE.value(figures.row(0.0, ABC, 0).rates[1])


def test_what_is_told_follows_what_is_measured_but_slowly() -> None:
    figures = Figures("a/1", Trips())
    for _ in range(20):
        figures.measured(0.0, {"b/1": Reading(25e6)}, {}, ABC)
    before = told_of_b(figures)
    figures.measured(0.0, {"b/1": Reading(50e6)}, {}, ABC)
    assert before < told_of_b(figures) < 1.5 * before
    for _ in range(20):
        figures.measured(0.0, {"b/1": Reading(50e6)}, {}, ABC)
    assert told_of_b(figures) == pytest.approx(50e6, rel=0.05)


def test_what_changes_by_half_a_step_and_a_little_is_not_told_anew() -> None:
    figures = Figures("a/1", Trips())
    told = set()
    for off in (0.0, 0.6, -0.6, 0.6):
        for _ in range(20):
            rate = RATE.value(100) * RATE.ratio**off
            figures.measured(0.0, {"b/1": Reading(rate)}, {}, ABC)
        told.add(told_of_b(figures))
    assert len(told) == 1


@pytest.mark.parametrize("uid", ["a/1", "d/1"])
def test_a_rate_from_oneself_or_a_stranger_is_left_out_with_a_reason(uid: str) -> None:
    figures = Figures("a/1", Trips())
    assert "no other member" in figures.measured(0.0, {uid: Reading(1e6)}, {}, ABC)
    assert not figures.knows_rates


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_what_is_no_share_is_left_out_with_a_reason(share: float) -> None:
    figures = Figures("a/1", Trips())
    assert "not the share" in figures.measured(0.0, {}, {"b/1": share}, ABC)
    assert figures.row(0.0, ABC, 0).losses == (0, 0, 0)


@pytest.mark.parametrize(
    ("sender", "row", "reason"),
    [
        ("d/1", row_of(1, (0, 9, 9)), "no member"),
        ("b/1", row_of(2, (9, 0, 9)), "epoch 2"),
        ("b/1", row_of(1, (9, 0)), "2 links"),
        ("b/1", row_of(1, (9, 0, 9), (9, 0)), "links"),
    ],
)
def test_a_row_that_cannot_be_is_refused_with_a_reason(
    sender: str, row: LinkFigures, reason: str
) -> None:
    figures = Figures("a/1", Trips())
    assert reason in figures.told(0.0, sender, row, ABC)
    assert figures.graph(0.0, ABC) is None


def told(
    view: View,
    rate: float,
    trust: Trust = Trust.MEASURED,
    cards: Mapping[str, int] | None = None,
    **slow: float,
) -> Figures:
    """As the lead knows them at 0 s; ``b_c`` is the rate from b to c, in bytes/s."""
    figures = Figures("a/1", Trips())
    for to in view.members:
        rates = [RATE.step(slow.get(f"{from_.node}_{to.node}", rate)) for from_ in view.members]
        row = row_of(view.epoch, rates, trust=trust, card_mbit=(cards or {}).get(to.node, 0))
        assert figures.told(0.0, to.uid, row, view) == ""
    return figures


def graph_of(figures: Figures, view: View, now: float = 0.0) -> Graph:
    graph = figures.graph(now, view)
    assert graph is not None
    return graph


def test_the_graph_has_every_link_of_the_view_both_ways() -> None:
    graph = graph_of(told(ABC, 25e6), ABC)
    assert len(graph.links) == 6
    link = graph.links["a/1", "b/1"]
    assert link.rate_mbit == pytest.approx(25e6 / BYTES_PER_S_PER_MBIT, rel=0.05)
    assert link.latency_ms == pytest.approx(10, rel=0.05)
    assert (link.loss, link.confidence) == (0.0, 1.0)


def test_a_link_that_the_view_lacks_needs_no_figures() -> None:
    apart = view("a", "b", "c", missing=(("a/1", "b/1"),))
    graph = graph_of(told(ABC, 25e6), apart)
    assert ("a/1", "b/1") not in graph.links
    assert len(graph.links) == 4


def test_a_link_of_which_nothing_is_known_counts_as_one_like_the_others() -> None:
    graph = graph_of(told(ABC, 25e6), view("a", "b", "c", "d"))
    assert graph.links["a/1", "d/1"].confidence == 0
    assert rate_mbit(graph, "a", "d") == pytest.approx(rate_mbit(graph, "a", "b"))


def rate_mbit(graph: Graph, a: str, b: str) -> float:
    """What a planner counts with."""
    return counted(graph).links[f"{a}/1", f"{b}/1"].rate_mbit


def test_a_lower_bound_makes_no_link_look_slow_but_may_make_it_look_fast() -> None:
    figures = told(ABC, 25e6)
    for rate, expected in ((1e6, 25e6), (100e6, 100e6)):
        row = row_of(1, [RATE.step(25e6), RATE.step(rate), 0], trust=Trust.AT_LEAST)
        figures.told(0.0, "c/1", row, ABC)
        graph = graph_of(figures, ABC)
        assert rate_mbit(graph, "b", "c") == pytest.approx(
            expected / BYTES_PER_S_PER_MBIT, rel=0.05
        )


def test_of_lower_bounds_alone_there_is_no_graph() -> None:
    assert told(ABC, 25e6, Trust.AT_LEAST).graph(0.0, ABC) is None


def test_what_a_train_says_counts_half_way_to_what_is_usual() -> None:
    figures = told(ABC, 25e6)
    row = row_of(1, [0, RATE.step(1e6), 0], trust=Trust.TRAIN)
    figures.told(0.0, "c/1", row, ABC)
    assert rate_mbit(graph_of(figures, ABC), "b", "c") == pytest.approx(40, rel=0.1)


def test_an_old_figure_fades_and_then_the_link_counts_as_one_like_the_others() -> None:
    figures = told(ABC, 25e6, b_c=2.5e6)
    seen = []
    for now in (0.0, 100.0, 250.0, 500.0, 1000.0):
        for uid in ABC.uids[:2]:
            figures.told(now, uid, row_of(1, (RATE.step(25e6),) * 3), ABC)
        row = row_of(1, [RATE.step(25e6), 0, 0])
        figures.told(now, "c/1", row, ABC)
        graph = graph_of(figures, ABC, now)
        assert graph.links["b/1", "c/1"].age_s == pytest.approx(max(now, 1), rel=0.5)
        seen.append(rate_mbit(graph, "b", "c"))
    assert seen[0] == seen[1] == pytest.approx(20, rel=0.05)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(200, rel=0.05)


def test_the_lead_knows_the_loss_from_who_sends() -> None:
    b = Figures("b/1", Trips())
    assert b.measured(0.0, {"c/1": Reading(25e6)}, {"c/1": 0.02, "a/1": 0.0}, ABC) == ""
    figures = told(ABC, 25e6)
    figures.told(0.0, "b/1", b.row(0.0, ABC, 0), ABC)
    graph = graph_of(figures, ABC)
    assert graph.links["b/1", "c/1"].loss == pytest.approx(0.02, rel=0.25)
    assert graph.links["b/1", "a/1"].loss == graph.links["c/1", "b/1"].loss == 0


def test_a_card_that_says_how_fast_it_is_caps_its_member() -> None:
    graph = graph_of(told(ABC, 25e6, cards={"a": 1000, "b": 100}), ABC)
    # Over that of b more has come than it says: something else carries b's links.
    assert graph.caps == {"a/1": Cap(1000, 1000)}


def test_members_of_one_machine_have_no_card_between_them() -> None:
    members = tuple(Member(n, 1, "127.0.0.1", 1, machine="m" * (n != "c")) for n in "abc")
    housed = View("r", 0, 1, members, (), 0, mesh_plan([m.uid for m in members]))
    graph = graph_of(told(housed, 25e6, cards=dict.fromkeys("abc", 1000)), housed)
    assert graph.caps == {"c/1": Cap(1000, 1000)}


def test_age_alone_is_no_new_question_to_the_planner() -> None:
    replanning, figures = Replanning(Timeouts(1.0)), told(ABC, 25e6, b_c=2.5e6)
    assert replanning.ask(ABC, graph_of(figures, ABC, 0.0), 1 << 20) is not None
    for now in range(100):
        assert replanning.ask(ABC, graph_of(figures, ABC, float(now)), 1 << 20) is None


def test_there_is_no_graph_of_too_many() -> None:
    many = view(*(f"n{i}" for i in range(MOST_MEMBERS + 1)))
    assert told(many, 25e6).graph(0.0, many) is None


def test_who_goes_takes_its_links_along() -> None:
    figures = told(ABC, 25e6)
    figures.keep_only({"a/1", "b/1"})
    assert figures.graph(0.0, view("a", "b")) is not None
    assert graph_of(figures, ABC).links["a/1", "c/1"].confidence == 0


def test_whatever_step_a_loss_is_told_as_a_graph_can_have_it() -> None:
    for share in (0.0, 0.5, 1.0):
        assert 0 <= LOSS.value(LOSS.step(share)) < 1
    assert all(0 <= LOSS.value(step) < 1 for step in range(1, MOST_STEPS + 1))
