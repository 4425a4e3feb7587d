"""A pull by what is known of the links, in virtual time: wrong figures cost little."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

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
from lightning_chaos.replication.schedule import LOOK_AGAIN_S, Schedule
from lightning_chaos.replication.values import Source
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.train import Arrival

MB = 1_000_000
Rates = Mapping[str, float]
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
        silent: from when on some send nothing any more, seconds.
    """

    def __init__(
        self,
        total: int,
        rates: Rates,
        believed: Rates,
        rtt_s: float = 0.02,
        silent: Mapping[str, float] | None = None,
    ) -> None:
        self.goal = goal_of(total, [*rates])
        self.donors = {name: donor(name, believed.get(name)) for name in rates}
        self.schedule = Schedule(self.goal, [*self.donors.values()])
        for one in self.donors.values():
            one.gauge.connected(rtt_s)
        self.now_s = 0.0
        self._rates = rates
        self._rtt_s = rtt_s
        self._silent = silent or {}
        self._free_s = dict.fromkeys(rates, 0.0)
        self._coming: list[tuple[float, str, float, int]] = []

    def run(self) -> float:
        """Returns when the last shard is there, seconds."""
        self.schedule.plan([*self.donors.values()], 0.0)
        work, heard = self.goal.assignment, ""
        while not work.done:
            for name in self.donors:
                if name == heard or not work.under_way(name):
                    self._ask(name)
            look_s = self.now_s + LOOK_AGAIN_S
            if self._coming[0][0] > look_s:
                self.now_s, heard = look_s, ""
                continue
            self.now_s, heard, begun_s, index = heapq.heappop(self._coming)
            self._come(self.donors[heard], index, begun_s)
        return self.now_s

    def _ask(self, name: str) -> None:
        for index in self.schedule.requests(self.donors[name], self.now_s):
            begin = max(self.now_s + self._rtt_s, self._free_s[name])
            self._free_s[name] = begin + self.goal.manifest.span(index)[1] / self._rates[name]
            if self._free_s[name] > self._silent.get(name, math.inf):
                self._free_s[name] = math.inf
            heapq.heappush(self._coming, (self._free_s[name], name, begin, index))
            self.donors[name].gauge.live.begin()

    def _come(self, one: Candidate, index: int, begun_s: float) -> None:
        _, length = self.goal.manifest.span(index)
        one.gauge.pace.answered(length, begun_s, self.now_s)
        one.gauge.live.received(self.now_s, length)
        if self.goal.assignment.arrived(one.source.uid, index):
            one.gave(length, begun_s, self.now_s)
        if not self.goal.assignment.under_way(one.source.uid):
            one.gauge.live.end()
        if self.schedule.outdated(one, self.now_s):
            self.schedule.plan([*self.donors.values()], self.now_s)


def worst_of(total: int, cases: Iterable[tuple[Rates, Rates]], rtt_s: float) -> float:
    """Time over the bound, of the worst of these pairs of true and believed rates."""
    return max(
        VirtualPull(total, rates, believed, rtt_s).run()
        / fluid(total, [*rates.values()], [rtt_s] * len(rates))
        for rates, believed in cases
    )


def every_error(rates: Rates, error: float) -> Iterator[tuple[Rates, Rates]]:
    """Each rate believed right, too low or too high, in all combinations."""
    for wrong in itertools.product((1 / error, 1, error), repeat=len(rates)):
        yield rates, {name: rates[name] * by for name, by in zip(rates, wrong, strict=True)}


def random_errors(error: float) -> Iterator[tuple[Rates, Rates]]:
    rng = random.Random(f"pull {error}")
    for _ in range(60):
        rates = {f"n{i}": rng.uniform(100, 1000) * 125e3 for i in range(rng.randint(2, 6))}
        yield rates, {name: rate * error ** rng.choice((-1, 1)) for name, rate in rates.items()}


@pytest.mark.parametrize("rtt_s", [0.02, 0.1])
@pytest.mark.parametrize("error", [1, 2, 4])
def test_wrong_rates_cost_at_most_a_quarter(error: float, rtt_s: float) -> None:
    """Where the state takes a few round trips and more: here 0.2 s at least."""
    unlike = {"a": 25e6, "b": 12.5e6, "c": 6.25e6}
    assert worst_of(64 * MB, every_error(unlike, error), rtt_s) <= 1.05
    assert worst_of(16 * MB, every_error(unlike, error), rtt_s) <= 1.15
    assert worst_of(170 * MB, random_errors(error), rtt_s) <= 1.15


@pytest.mark.parametrize("error", [2, 4])
def test_what_was_asked_before_the_first_answer_is_what_wrong_rates_cost(error: float) -> None:
    """A state that is asked for at once, of the wrong donors, costs a round trip or so more."""
    unlike = {"a": 25e6, "b": 12.5e6, "c": 6.25e6}
    bound_s = fluid(4 * MB, [*unlike.values()], [0.1] * 3)
    longest_s = bound_s * worst_of(4 * MB, every_error(unlike, error), 0.1)
    assert longest_s <= bound_s + 0.1


def test_a_donor_that_falls_silent_is_no_longer_waited_for() -> None:
    rates = {"a": 25e6, "b": 12.5e6, "c": 6.25e6}
    pull = VirtualPull(64 * MB, rates, rates, silent={"c": 0.5})
    bound_s = fluid(64 * MB - 0.48 * 6.25e6, [25e6, 12.5e6], [0.02] * 2)
    assert pull.run() <= 1.1 * bound_s


def test_what_is_remembered_wins_over_the_train_and_both_are_planned_by() -> None:
    goal = goal_of(64 * MB, ["a", "b", "c"])
    a, b, c = donor("a", 20e6), donor("b"), donor("c")
    for one in (a, b):
        one.gauge.heard_train([Arrival(k * 1e-4, 1000) for k in range(65)])  # 10 MB/s
    Schedule(goal, [a, b, c]).plan([a, b, c], 0.0)
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


@pytest.mark.parametrize(
    ("factor", "outdated"), [(0.5, True), (0.9, False), (1.1, False), (2, True)]
)
def test_a_plan_is_outdated_once_answers_show_another_rate(factor: float, outdated: bool) -> None:
    goal, one = goal_of(64 * MB, ["a"]), donor("a", 10e6)
    schedule = Schedule(goal, [one])
    schedule.plan([one], 0.0)
    size = goal.manifest.shard_bytes
    assert list(schedule.requests(one, 0.0))
    assert not schedule.outdated(one, 1.0)
    one.gauge.pace.answered(size, 0.0, size / (factor * 10e6))
    assert schedule.outdated(one, 1.0) is outdated


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
