"""A pull by what is known of the links, in virtual time: wrong figures cost little."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Mapping, Sequence

import pytest

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning.completion import fluid
from lightning_chaos.planning.pull import choose_shard_bytes
from lightning_chaos.protocol.values import OpId
from lightning_chaos.replication.assignment import Assignment
from lightning_chaos.replication.candidate import Candidate
from lightning_chaos.replication.gauge import Gauge
from lightning_chaos.replication.goal import Goal
from lightning_chaos.replication.image import Manifest
from lightning_chaos.replication.schedule import Schedule
from lightning_chaos.replication.values import Source
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.train import Arrival

MB = 1_000_000
NOWHERE = Address("127.0.0.1", 1)


def goal_of(total: int, uids: Sequence[str]) -> Goal:
    """Everything is still to be pulled; there is no memory behind it."""
    size = choose_shard_bytes(total)
    count = -(-total // size)
    manifest = Manifest(3, OpId(2, 0), 0, total, size, (b"",) * count, b"")
    work = Assignment({uid: range(count) if uid == uids[0] else () for uid in uids})
    return Goal(manifest, memoryview(b""), work, 0)


def donor(name: str, remembered: float | None = None) -> Candidate:
    return Candidate.of(Source(name, name, NOWHERE, remembered))


class VirtualPull:
    """A pull whose donors send at known rates.

    Args:
        total: bytes of the state.
        rates: of the links, bytes/s.
        believed: what is remembered of them.
        rtt_s: of all of them, seconds.
    """

    def __init__(
        self,
        total: int,
        rates: Mapping[str, float],
        believed: Mapping[str, float],
        rtt_s: float = 0.02,
    ) -> None:
        self.goal = goal_of(total, [*rates])
        self.schedule = Schedule(self.goal)
        self.donors = {name: donor(name, believed.get(name)) for name in rates}
        for one in self.donors.values():
            one.gauge.connected(rtt_s)
        self.now_s = 0.0
        self._rates = rates
        self._rtt_s = rtt_s
        self._free_s = dict.fromkeys(rates, 0.0)
        self._coming: list[tuple[float, str, int]] = []

    def run(self) -> float:
        """Returns when the last shard is there, seconds."""
        self.schedule.plan([*self.donors.values()], 0.0)
        while True:
            for name in self.donors:
                self._ask(name)
            self.now_s, name, index = heapq.heappop(self._coming)
            self._come(self.donors[name], index)
            if self.goal.assignment.done:
                return self.now_s

    def _ask(self, name: str) -> None:
        work, gauge = self.goal.assignment, self.donors[name].gauge
        while work.under_way(name) < self.goal.ahead(gauge.bytes_per_s, gauge.rtt_s):
            if (index := work.next(name)) is None:
                break
            begin = max(self.now_s + self._rtt_s, self._free_s[name])
            self._free_s[name] = begin + self.goal.manifest.span(index)[1] / self._rates[name]
            heapq.heappush(self._coming, (self._free_s[name], name, index))
            gauge.live.begin()

    def _come(self, one: Candidate, index: int) -> None:
        _, length = self.goal.manifest.span(index)
        one.gauge.live.received(self.now_s, length)
        if self.goal.assignment.arrived(one.source.uid, index):
            one.gave(length, self.now_s, self.now_s)
        if not self.goal.assignment.under_way(one.source.uid):
            one.gauge.live.end()
        if one.gauge.certain and not one.certain:
            one.certain = True
            self.schedule.plan([*self.donors.values()], self.now_s)


@pytest.mark.parametrize("error", [1, 2, 4])
def test_wrong_rates_cost_at_most_a_quarter(error: float) -> None:
    rng = random.Random(f"pull {error}")
    worst = 0.0
    for _ in range(60):
        rates = {f"n{i}": rng.uniform(100, 1000) * 125e3 for i in range(rng.randint(2, 6))}
        believed = {name: rate * error ** rng.choice((-1, 1)) for name, rate in rates.items()}
        took = VirtualPull(170 * MB, rates, believed).run()
        bound = fluid(170 * MB, [*rates.values()], [0.02] * len(rates), math.inf)
        worst = max(worst, took / bound)
    assert worst <= 1.25


def test_what_is_remembered_wins_over_the_train_and_both_are_planned_by() -> None:
    goal = goal_of(64 * MB, ["a", "b", "c"])
    a, b, c = donor("a", 20e6), donor("b"), donor("c")
    for one in (a, b):
        one.gauge.heard_train([Arrival(k * 1e-4, 1000) for k in range(65)])  # 10 MB/s
    Schedule(goal).plan([a, b, c], 0.0)
    assert [d.share.planned_bytes_per_s for d in (a, b, c)] == pytest.approx([20e6, 10e6, 20e6])
    assert sum(d.share.planned_bytes for d in (a, b, c)) == pytest.approx(64 * MB, rel=0.02)
    assert a.share.planned_bytes == pytest.approx(2 * b.share.planned_bytes, rel=0.1)


def test_links_of_which_nothing_is_known_get_equal_parts() -> None:
    pull = VirtualPull(64 * MB, {"a": 10e6, "b": 10e6}, {})
    pull.schedule.plan([*pull.donors.values()], 0.0)
    first, second = (d.share.planned_bytes for d in pull.donors.values())
    assert first == pytest.approx(second, rel=0.05)
    assert pull.schedule.predicted_s is None


def test_the_plan_made_anew_says_when_the_pull_ends_and_what_each_donor_gives() -> None:
    rates = {"a": 25e6, "b": 12.5e6, "c": 6.25e6}
    pull = VirtualPull(100 * MB, rates, {"a": 6.25e6, "b": 12.5e6, "c": 25e6})
    took = pull.run()
    assert 0.5 < pull.schedule.planned_s < 0.5 * took
    assert pull.schedule.predicted_s is not None
    assert pull.schedule.predicted_s == pytest.approx(took, rel=0.05)
    for name, one in pull.donors.items():
        assert one.share.planned_bytes == pytest.approx(one.share.bytes, rel=0.1), name
        assert one.share.bytes / (100 * MB) == pytest.approx(rates[name] / 43.75e6, abs=0.03)


def test_few_requests_are_under_way_on_a_slow_link_and_enough_on_a_long_one() -> None:
    goal = goal_of(170 * MB, ["a"])
    size = goal.manifest.shard_bytes
    assert goal.ahead(6.25e6, 0.0) == 2
    for rate, rtt_s in ((125e6, 0.02), (125e6, 0.1), (12.5e6, 0.2)):
        assert goal.ahead(rate, rtt_s) * size >= 1.5 * rate * rtt_s
    assert goal.ahead(None, 0.0) * size >= 2.5e6


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_cannot_be_is_not_remembered(rate: float) -> None:
    with pytest.raises(ConfigError, match="is remembered of a link, which is not a rate"):
        Gauge(rate)
