"""Several newcomers at once: everybody gets everything, and how near the plan is to the bound."""

from __future__ import annotations

import itertools
import random

import pytest
from flow_bound import random_multicast
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning.graph import Cap, Graph, Link
from lightning_chaos.planning.pull import donors_of, plan_pull
from lightning_chaos.planning.several import SeveralPlan, plan_several

MB = 1_000_000
SIZE = 1 << 16
WIDE = Link(1e6, 0.0)
NO_WAY = {("o0", "n1"): Link(1e-3, 0.0)}
"""Everybody needs a link from a donor."""

caps = st.builds(Cap, st.floats(50, 1000), st.floats(50, 4000))


def names(letter: str, number: int) -> list[str]:
    return [f"{letter}{i}" for i in range(number)]


def mesh(old: list[Cap], new: list[Cap], link: Link = WIDE) -> Graph:
    """All linked with all; the old ones' names begin with o, the newcomers' with n."""
    members = (*names("o", len(old)), *names("n", len(new)))
    pairs = itertools.permutations(members, 2)
    return Graph(members, dict.fromkeys(pairs, link), dict(zip(members, [*old, *new], strict=True)))


def plan_for(graph: Graph, total: int = 100 * MB, size: int = SIZE) -> SeveralPlan:
    new = [name for name in graph.members if name.startswith("n")]
    old = [name for name in graph.members if name.startswith("o")]
    return plan_several(total, [size], graph, new, old, {})


def shards_from(plan: SeveralPlan, newcomer: str, source: str) -> int:
    return sum(end - first for first, end in plan.ranges[newcomer].get(source, ()))


def giver(plan: SeveralPlan, newcomer: str, index: int) -> str:
    """Who sends it that shard."""
    sources = plan.ranges[newcomer].items()
    return next(name for name, ranges in sources for r in ranges if index in range(*r))


def check(plan: SeveralPlan, graph: Graph) -> None:
    """Every newcomer gets every shard once, over links that are there, from who has or gets it."""
    for newcomer, sources in plan.ranges.items():
        got = sorted(index for ranges in sources.values() for r in ranges for index in range(*r))
        assert got == list(range(plan.shards))
        assert all((source, newcomer) in graph.links for source in sources)
        for source, ranges in sources.items():
            for index in {index for r in ranges for index in range(*r)}:
                way = [newcomer, source]
                while way[-1] in plan.ranges:
                    way.append(giver(plan, way[-1], index))
                    assert len(way) <= len(plan.ranges) + 1, "they wait for each other in a ring"
    assert plan.bound_s <= plan.makespan_s * (1 + 1e-9)
    assert plan.makespan_s == max(plan.ends_s.values())
    for newcomer, spans in plan.spans_s.items():
        assert spans.keys() == plan.ranges[newcomer].keys()
        assert all(0 <= begin < end <= plan.ends_s[newcomer] for begin, end in spans.values())
        assert plan.ends_s[newcomer] == max(end for _, end in spans.values())


@settings(max_examples=60)
@given(st.lists(caps, min_size=1, max_size=5), st.lists(caps, min_size=1, max_size=5))
def test_where_only_cards_limit_the_plan_is_a_few_shards_from_the_bound(
    old: list[Cap], new: list[Cap]
) -> None:
    graph = mesh(old, new)
    plan = plan_for(graph)
    check(plan, graph)
    counts = [
        shards_from(plan, newcomer, donor)
        for newcomer in plan.ranges
        for donor in graph.members
        if donor not in plan.ranges
    ]
    counts += [
        n for a, b in itertools.permutations(plan.ranges, 2) if (n := shards_from(plan, a, b))
    ]
    # who sends n shards in all that time sends one in an n-th of it
    period_s = plan.makespan_s / max(1, min(counts))
    assert plan.makespan_s <= plan.bound_s + 3 * period_s


@settings(max_examples=60)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.lists(st.tuples(st.floats(10, 1000), st.booleans()), min_size=42, max_size=42),
)
def test_on_any_links_everybody_gets_everything(
    old: int, new: int, links: list[tuple[float, bool]]
) -> None:
    members = (*names("o", old), *names("n", new))
    pairs = itertools.permutations(members, 2)
    graph = Graph(
        members,
        {
            (a, b): Link(rate, 1.0)
            for (a, b), (rate, up) in zip(pairs, links, strict=False)
            if up or a == "o0"
        },
        {"o0": Cap(up_mbit=300)},
    )
    check(plan_for(graph, 10 * MB), graph)


@settings(max_examples=60)
@given(st.integers(0, 1 << 32), st.integers(1, 4), st.integers(2, 4))
def test_on_any_links_the_plan_is_near_the_bound(seed: int, old: int, new: int) -> None:
    graph = random_multicast(random.Random(seed), old, new)
    quick = {ends: Link(link.rate_mbit, 0.0) for ends, link in graph.links.items()}
    plan = plan_for(Graph(graph.members, quick, graph.caps), 1000 * MB)
    assert plan.makespan_s <= 1.05 * plan.bound_s


def test_who_hardly_hears_the_donors_is_served_by_a_newcomer_who_does() -> None:
    links = {("o0", "n0"): 80, ("o0", "n1"): 8, ("n0", "n1"): 160, ("n1", "n0"): 8}
    graph = Graph(("o0", "n0", "n1"), {ends: Link(rate, 50) for ends, rate in links.items()})
    plan = plan_for(graph)
    # 80 Mbit/s come from o0, who is heard after 100 ms, and a little by way of n1
    assert plan.bound_s == pytest.approx(0.1 + 100 * MB / 11e6, rel=1e-3)
    assert plan.makespan_s == pytest.approx(plan.bound_s, rel=0.03)
    assert shards_from(plan, "n1", "n0") >= 0.9 * plan.shards * 10 / 11


def test_a_shard_is_passed_on_once_it_is_there_and_takes_its_time_and_the_ways() -> None:
    graph = Graph(
        ("o0", "n0", "n1"), {("o0", "n0"): Link(80, 10), ("n0", "n1"): Link(80, 30), **NO_WAY}
    )
    plan = plan_several(10 * MB, [MB], graph, ["n0", "n1"], ["o0"], {"o0": 0.5}, 0.001)
    shard_s = 0.001 + 0.1
    assert plan.spans_s["n0"]["o0"] == pytest.approx((0.52, 0.52 + 10 * shard_s))
    assert plan.spans_s["n1"]["n0"] == pytest.approx(
        (0.52 + shard_s + 0.03, 0.52 + 11 * shard_s + 0.03)
    )


def test_the_best_size_of_a_shard_is_taken() -> None:
    graph = mesh([Cap(80)], [Cap(), Cap()])
    coarse, fine = (plan_for(graph, 16 * MB, size) for size in (8 * MB, MB))
    both = plan_several(16 * MB, [8 * MB, MB], graph, ["n0", "n1"], ["o0"], {})
    assert both == min(coarse, fine, key=lambda plan: plan.makespan_s) == fine


def test_one_newcomer_gets_the_plan_of_a_pull() -> None:
    graph = mesh([Cap(100), Cap(300)], [Cap(down_mbit=350)], Link(200, 4.0))
    plan = plan_for(graph)
    alone = plan_pull(100 * MB, SIZE, donors_of(graph, "n0", ["o0", "o1"], {}), 350 * 125_000)
    assert plan.makespan_s == alone.makespan_s
    assert plan.bound_s == alone.bound_s
    assert plan.ranges == {"n0": {name: (r,) for name, r in alone.ranges.items()}}


@pytest.mark.parametrize(
    ("old", "new", "seconds"),
    [
        ([Cap(100)], [Cap(1000, 1000)] * 3, 8.0),  # all leaves the one donor once
        ([Cap(1000)], [Cap(1000, 50)] * 3, 16.0),  # a newcomer takes in no more
        ([Cap(500), Cap(700)], [Cap(100, 9999)] * 3, 1.6),  # three copies by all who can send
        ([Cap(1200)], [Cap(1, 9999)] * 3, 2400 / 1203),  # newcomers that hardly send
    ],
)
def test_the_bound_of_peer_assisted_distribution_is_reached(
    old: list[Cap], new: list[Cap], seconds: float
) -> None:
    plan = plan_for(mesh(old, new))
    assert plan.bound_s == pytest.approx(seconds, rel=1e-3)
    assert plan.makespan_s <= 1.03 * seconds


def test_newcomers_that_cannot_reach_each_other_share_the_donors() -> None:
    graph = Graph(
        ("o0", "n0", "n1"), {("o0", "n0"): WIDE, ("o0", "n1"): WIDE}, {"o0": Cap(up_mbit=80)}
    )
    plan = plan_for(graph)
    assert plan.makespan_s == pytest.approx(20.0, rel=0.01)
    assert set(plan.ranges["n0"]) == {"o0"}


@pytest.mark.parametrize("newcomers", [[], ["n0", "n0"], ["o0"]])
def test_newcomers_that_cannot_be_are_refused(newcomers: list[str]) -> None:
    with pytest.raises(ConfigError, match="at least one is needed"):
        plan_several(MB, [SIZE], mesh([Cap()], [Cap()]), newcomers, ["o0"], {})


@pytest.mark.parametrize(("total", "size"), [(0, SIZE), (MB, 0), (MB, -1), (MB, MB + 1)])
def test_an_empty_state_and_shards_that_cannot_be_are_refused(total: int, size: int) -> None:
    with pytest.raises(ConfigError, match=r"nothing to pull|a shard must be positive"):
        plan_for(mesh([Cap()], [Cap(), Cap()]), total, size)


def test_one_of_several_that_is_disconnected_is_named() -> None:
    graph = Graph(("o0", "n0", "n1"), {("o0", "n0"): WIDE, ("n0", "n1"): WIDE})
    with pytest.raises(ConfigError, match="newcomer n1 is disconnected"):
        plan_for(graph)
