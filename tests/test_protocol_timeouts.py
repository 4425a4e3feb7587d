"""Round trips measured from heartbeats, and how long a silence they allow."""

from __future__ import annotations

import pytest

from lightning_chaos.protocol.events import (
    Event,
    FromWorker,
    Heard,
    Level,
    Linked,
    Log,
    Redial,
    Searched,
    Send,
    Tick,
    Unlinked,
)
from lightning_chaos.protocol.local import AskSeat
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.timeouts import Timeouts, derived_s
from lightning_chaos.protocol.trips import NO_ECHO, Trip, Trips
from lightning_chaos.protocol.values import Member

BEAT_S = 0.2


def trip_of(*seconds: float) -> Trip:
    trip = Trip()
    for sample in seconds:
        trip.add(sample)
    return trip


def exchange(trips: dict[str, Trips], there_s: float, back_s: float, beats: int = 20) -> None:
    """Heartbeats of a and b, whose clocks have nothing to do with each other."""
    offset = 7000.0
    for beat in range(1, beats + 1):
        now = beat * BEAT_S
        sent = trips["a"].stamp(now), trips["a"].echo(now, "b")
        trips["b"].heard(now + there_s + offset, "a", *sent)
        now += BEAT_S / 2
        sent = trips["b"].stamp(now + offset), trips["b"].echo(now + offset, "a")
        trips["a"].heard(now + back_s, "b", *sent)


def test_both_ends_measure_the_whole_round_trip_whatever_their_clocks_show() -> None:
    trips = {"a": Trips(), "b": Trips()}
    exchange(trips, there_s=0.030, back_s=0.045)
    for name, other in ("ab", "ba"):
        trip = trips[name].of(other)
        assert trip is not None
        assert trip.smoothed_s == pytest.approx(0.075, abs=1e-4)
        assert trip.fastest_s == pytest.approx(0.075, abs=1e-4)
        assert trip.late == 0


def test_the_smoothed_trip_and_its_variation_are_those_of_rfc_6298() -> None:
    trip = trip_of(0.1)
    assert (trip.smoothed_s, trip.varies_s) == (0.1, 0.05)
    trip.add(0.2)  # the median of so few is the lower one
    assert trip.varies_s == pytest.approx(0.75 * 0.05)
    trip.add(0.2)
    assert trip.varies_s == pytest.approx(0.75**2 * 0.05 + 0.25 * 0.1)
    assert trip.smoothed_s == pytest.approx(0.1 + 0.1 / 8)


def test_one_stopped_process_says_nothing_about_the_link() -> None:
    trip = trip_of(*[0.01] * 20)
    before = trip.smoothed_s, trip.varies_s * 0.75
    trip.add(5.0)
    assert (trip.smoothed_s, trip.varies_s) == before
    assert trip.late == pytest.approx(1 / 16)


def test_a_reading_of_nonsense_measures_nothing() -> None:
    trips = Trips()
    for echo in (NO_ECHO, (1, 1 << 40), (1 << 40, 0), (-5, -5)):
        assert trips.heard(1000.0, "b", 0, echo) is None
    assert trips.of("b") is None


def test_an_echo_counts_once() -> None:
    trips = Trips()
    stamp = trips.stamp(1.0)
    assert trips.heard(1.1, "b", 0, (stamp, 0)) is not None
    assert trips.heard(4.0, "b", 0, (stamp, 1_000_000)) is None


def test_the_clock_may_wrap_around_between_reading_and_echo() -> None:
    trips = Trips()
    wraps = (1 << 32) / 1e6
    trip = trips.heard(wraps + 0.01, "b", 0, (trips.stamp(wraps - 0.01), 0))
    assert trip is not None
    assert trip.smoothed_s == pytest.approx(0.02, abs=1e-4)


# ---- what follows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("round_trip_s", "timeout_s"),
    [(0.0001, 1.0), (0.05, 1.0), (0.15, 1.25), (0.3, 1.7), (0.6, 2.6), (30.0, 60.0)],
)
def test_the_timeout_is_a_second_on_short_links_and_derived_on_long_ones(
    round_trip_s: float, timeout_s: float
) -> None:
    timeouts = Timeouts(None)
    timeouts.measured("b", trip_of(*[round_trip_s] * 50))
    assert timeouts.of("b") == timeouts.longest_s == pytest.approx(timeout_s, abs=1e-3)
    assert timeouts.of("c") == 1.0
    timeouts.keep_only(())
    assert timeouts.longest_s == 1.0


def test_a_link_that_varies_is_given_more_time() -> None:
    steady, varying = trip_of(*[0.1] * 40), trip_of(*[0.05, 0.05, 0.35, 0.35] * 10)
    assert derived_s(varying, BEAT_S) > derived_s(steady, BEAT_S) + 0.5


def test_what_the_user_has_set_stays_and_is_judged_once() -> None:
    timeouts = Timeouts(0.5)
    warning = [timeouts.measured("b", trip_of(*[0.4] * n)) for n in (1, 9, 10)]
    assert warning[0] == warning[2] == ""
    assert "timeout=0.5 s is short for the link to b" in warning[1]
    assert "CHAOS_TIMEOUT" in warning[1]
    assert timeouts.of("b") == timeouts.longest_s == 0.5
    assert Timeouts(0.5).measured("b", trip_of(*[0.001] * 10)) == ""


# ---- two peers on a long link ---------------------------------------------------------------


class Pair:
    """A member and its learner; they hear each other ``delay_s`` later, until the link is cut."""

    def __init__(self, delay_s: float, timeout_s: float | None) -> None:
        self.now, self.delay_s, self.cut = 0.0, delay_s, False
        self.peers = {
            name: Membership(Member(name, 1, "127.0.0.1", 1), run="r", timeout_s=timeout_s)
            for name in "ab"
        }
        self.logs: list[str] = []
        self.redials: list[str] = []
        self._wire: list[tuple[float, str, Heard]] = []
        a, b = self.peers["a"], self.peers["b"]
        self._do("a", Searched(exclusive=True))
        self._do("b", Linked(a.me))
        self._do("a", Linked(b.me))
        self.run(1.0)
        for name in "ba":
            self._do(name, FromWorker(AskSeat((("model", "m"),))))
        self.run(10 * delay_s + 1.0)

    def _do(self, name: str, event: Event) -> None:
        other = "b" if name == "a" else "a"
        for action in self.peers[name].step(self.now, event):
            match action:
                case Send(message=message) if not self.cut:
                    heard = Heard(self.peers[name].me.uid, message)  # type: ignore[arg-type]
                    self._wire.append((self.now + self.delay_s, other, heard))
                case Log(level=Level.WARNING, text=text):
                    self.logs.append(text)
                case Redial():
                    self.redials.append(name)
                case _:
                    pass

    def run(self, seconds: float, starved: str = "") -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.05
            for due in [w for w in self._wire if w[0] <= self.now]:
                self._wire.remove(due)
                self._do(due[1], due[2])
            for name in "ab":
                self._do(name, Tick(0.04 if name == starved else 0.0))


def test_a_peer_knows_the_trip_to_its_neighbour_after_a_few_heartbeats() -> None:
    pair = Pair(delay_s=0.3, timeout_s=None)
    pair.run(4.0)
    trip = pair.peers["a"].trips.of(pair.peers["b"].me.uid)
    assert trip is not None
    assert 0.55 < trip.smoothed_s < 0.75
    assert pair.peers["a"].timeouts.longest_s > 2.0


def test_a_peer_says_that_the_timeout_it_was_given_is_too_short() -> None:
    pair = Pair(delay_s=0.3, timeout_s=1.0)
    pair.run(4.0)
    assert len(pair.logs) == 2
    assert "timeout=1 s is short for the link to a/" in "".join(pair.logs)


def test_who_is_starved_itself_does_not_hold_the_silence_against_others() -> None:
    pair = Pair(delay_s=0.0, timeout_s=1.0)
    pair.cut = True
    pair.run(2.0, starved="a")
    assert pair.redials == ["b"]
    pair.run(5.0, starved="a")
    assert "a" in pair.redials, "it finds out in the end, as slowly as it gets to run"


def test_a_candidate_that_is_stopped_does_not_hold_up_the_founding() -> None:
    peer = Membership(Member("b", 1, "127.0.0.1", 1), run="r", min_members=2)
    peer.step(0.0, Linked(Member("a", 1, "127.0.0.1", 2)))
    peer.step(0.0, Linked(Member("cli", 1, "", 0)))
    quiet = [action for i in range(20) for action in peer.step(i / 20, Tick())]
    assert not any(isinstance(action, Redial) for action in quiet)
    anew = [action for action in peer.step(1.05, Tick()) if isinstance(action, Redial)]
    assert [action.uid for action in anew] == ["a/1"], "a visitor need not say anything"


def test_of_visitors_nothing_is_kept() -> None:
    peer = Membership(Member("a", 1, "127.0.0.1", 1), run="r")
    visitor, node = Member("cli-7", 1, "", 0), Member("b", 1, "127.0.0.1", 2)
    for member in (visitor, node):
        peer.step(1.0, Linked(member))
        peer.step(2.0, Unlinked(member.uid, "it went"))
    evidence = peer._standing.evidence
    assert evidence.why(node.uid) == "it went"
    assert evidence.why(visitor.uid) == ""
