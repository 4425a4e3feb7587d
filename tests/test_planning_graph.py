"""The cluster as measured: what can be said of it, and what is refused."""

from __future__ import annotations

import math

import pytest

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning.graph import Cap, Graph, Link

GOOD = Link(100, 5)


def test_a_link_goes_one_way_and_a_member_without_cap_has_none() -> None:
    graph = Graph(("a", "b"), {("a", "b"): GOOD}, {"a": Cap(up_mbit=50)})
    assert graph.links.get(("b", "a")) is None
    assert graph.cap("a") == Cap(50, math.inf)
    assert graph.cap("b") == Cap(math.inf, math.inf)


@pytest.mark.parametrize(
    "link",
    [
        *(Link(rate, 1) for rate in (0, -1, 1e-300, 1e300, math.nan, math.inf)),
        *(Link(1, latency) for latency in (-1, math.nan, math.inf)),
        *(Link(1, 1, loss=loss) for loss in (-0.1, 1, math.nan)),
        *(Link(1, 1, age_s=age) for age in (-1, math.nan)),
        *(Link(1, 1, confidence=confidence) for confidence in (-0.1, 1.1, math.nan)),
    ],
)
def test_a_figure_that_cannot_be_is_refused_with_its_link(link: Link) -> None:
    with pytest.raises(ConfigError, match="link a -> b"):
        Graph(("a", "b"), {("a", "b"): link})


@pytest.mark.parametrize("cap", [Cap(0, 1), Cap(1, -1), Cap(1e-300, 1), Cap(math.nan, 1)])
def test_a_card_that_carries_nothing_is_refused_by_name(cap: Cap) -> None:
    with pytest.raises(ConfigError, match="caps of b"):
        Graph(("a", "b"), {}, {"b": cap})


@pytest.mark.parametrize(
    ("members", "link", "caps", "told"),
    [
        (("a", "a"), None, {}, "two members have the name a"),
        (("a", ""), None, {}, "empty name"),
        (("a",), ("a", "b"), {}, "b is not a member"),
        (("a",), ("c", "a"), {}, "c is not a member"),
        (("a",), ("a", "a"), {}, "no link to itself"),
        (("a",), None, {"b": Cap()}, "cap is given for b"),
    ],
)
def test_what_belongs_to_nobody_is_refused(
    members: tuple[str, ...], link: tuple[str, str] | None, caps: dict[str, Cap], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        Graph(members, {} if link is None else {link: GOOD}, caps)
