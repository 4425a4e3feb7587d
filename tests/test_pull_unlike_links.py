"""A pull over real sockets whose links differ, through relays: wrong beliefs cost little."""

from __future__ import annotations

import asyncio
import math

import pytest
from pull_stage import MB, assert_whole, image_of, stage, state

from lightning_chaos.errors import ConfigError
from lightning_chaos.replication.values import Pulled
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.transport.relayed import dialler_for

# So slow that this process is not what limits them, also where it has not a processor for itself.
RATES = {"a": 10e6, "b": 5e6, "c": 2.5e6}
TOTAL = 24 * MB
TREE = state(TOTAL)


async def pull_over(relays: Relays, believed: dict[str, float], delay_ms: float = 5) -> Pulled:
    async with stage() as s:
        for name, rate in RATES.items():
            node = s.donor(name, image_of(TREE))
            relays.place(name, node.address)
            relays.shape(Shape(rate_mbit=rate * 8e-6, delay_ms=delay_ms), name, "new")
        dialler = dialler_for(str(relays.address), "new")
        pulled = await s.pull(rates=believed, dialler=dialler)
        assert_whole(pulled, TREE)
        return pulled


@pytest.mark.parametrize(("error", "delay_ms"), [(1, 5), (2, 5), (4, 5), (4, 50)])
@pytest.mark.parametrize("slow_is", ["overrated", "underrated"])
def test_with_wrong_rates_nobody_has_to_give_a_quarter_more_than_its_part(
    relays: Relays, error: float, delay_ms: float, slow_is: str
) -> None:
    wrong = error if slow_is == "overrated" else 1 / error
    believed = {n: rate * (wrong if n == "c" else 1 / wrong) for n, rate in RATES.items()}
    pulled = asyncio.run(pull_over(relays, believed, delay_ms))
    for share in pulled.donors:
        assert share.bytes <= 1.25 * TOTAL * RATES[share.name] / sum(RATES.values()), share.name


def test_with_nothing_known_the_transfer_itself_shows_the_rates(relays: Relays) -> None:
    pulled = asyncio.run(pull_over(relays, {}))
    for share in pulled.donors:
        assert share.measured is not None
        assert share.measured.bytes_per_s == pytest.approx(RATES[share.name], rel=0.15)
        assert share.rtt_s is not None
        assert share.rtt_s >= 0.01
        assert share.bytes / (TOTAL) == pytest.approx(RATES[share.name] / 17.5e6, abs=0.05)
    assert sum(share.planned_bytes for share in pulled.donors) == pytest.approx(TOTAL, rel=0.02)


@pytest.mark.parametrize("rate", [0.0, math.nan])
def test_a_rate_that_cannot_be_is_one_clear_error(relays: Relays, rate: float) -> None:
    with pytest.raises(ConfigError, match="remembered of a link, which is not a rate"):
        asyncio.run(pull_over(relays, {"a": rate}))
