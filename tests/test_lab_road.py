"""One direction of a link through a relay: when pieces arrive, in time that only a test moves."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path

import pytest

from lightning_chaos.testing.lab import native

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=native.missing())

LAB = Path(native.__file__).parent
PIECE = 1000
PIECE_NS = 2_000_000
DELAY_NS = 10_000_000
NONE, SILENT = 0, 1


class Shape(ctypes.Structure):
    """``struct shape`` of ``relay/road.h``."""

    _fields_ = (
        ("rate", ctypes.c_double),
        ("delay", ctypes.c_int64),
        ("jitter", ctypes.c_int64),
    )


class Road(ctypes.Structure):
    """``struct road``."""

    _fields_ = (
        ("source", ctypes.c_int),
        ("target", ctypes.c_int),
        ("shape", Shape),
        ("cut", ctypes.c_int),
        ("free_at", ctypes.c_int64),
        ("idle", ctypes.c_bool),
        ("carried", ctypes.c_uint64),
        ("pipes", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("room", ctypes.c_size_t),
        ("turn", ctypes.c_size_t),
    )


class Trip(ctypes.Structure):
    """``struct trip``."""

    _fields_ = (("due", ctypes.c_int64), ("held_up", ctypes.c_bool))


SHAPE = Shape(PIECE * 1e9 / PIECE_NS, DELAY_NS, 0)
"""Carries a piece in two milliseconds."""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The relay's arithmetic, as it is compiled."""
    library = tmp_path_factory.mktemp("road") / "road.so"
    sources = [LAB / "relay" / "road.c", LAB / "machine.c"]
    native.compile_c(sources, library, "-shared", "-fPIC")
    loaded = ctypes.CDLL(str(library))
    loaded.road_piece.restype = loaded.under_way.restype = ctypes.c_size_t
    loaded.road_send.restype = loaded.trip_next.restype = ctypes.c_int64
    loaded.road_change.restype = loaded.trip_ended.restype = ctypes.c_bool
    loaded.trip_begin.restype = Trip
    return loaded


@pytest.fixture
def road(relay: ctypes.CDLL) -> Road:
    """Of :data:`SHAPE`, idle."""
    made = Road(idle=True)
    change(relay, made, SHAPE, NONE, 0)
    return made


def change(relay: ctypes.CDLL, road: Road, shape: Shape, cut: int, now: int) -> bool:
    """Whether what is leaving must be sent again."""
    return bool(relay.road_change(ctypes.byref(road), shape, cut, ctypes.c_int64(now)))


def wake(relay: ctypes.CDLL, road: Road, now: int) -> None:
    """Somebody has something to send."""
    relay.road_wake(ctypes.byref(road), ctypes.c_int64(now))


def send(relay: ctypes.CDLL, road: Road, now: int) -> int:
    """When a piece that is sent then will have left."""
    size = ctypes.c_size_t(PIECE)
    return int(relay.road_send(ctypes.byref(road), size, ctypes.c_int64(now)))


def depart(relay: ctypes.CDLL, road: Road, leaves: int) -> Trip:
    """What leaves then."""
    trip = relay.trip_begin(ctypes.byref(road), ctypes.c_int64(leaves))
    assert isinstance(trip, Trip)
    return trip


def arrived(relay: ctypes.CDLL, road: Road, trip: Trip, now: int) -> bool:
    """Whether it is there."""
    return bool(relay.trip_ended(ctypes.byref(trip), ctypes.byref(road), ctypes.c_int64(now)))


def one_after_another(relay: ctypes.CDLL, road: Road, now: int, count: int) -> list[int]:
    """When pieces leave of which each is sent when the one before has left."""
    left = [now]
    for _ in range(count):
        left.append(send(relay, road, max(now, left[-1])))
    return left[1:]


def test_what_follows_a_silence_comes_at_the_rate_from_the_first_piece_on(
    relay: ctypes.CDLL, road: Road
) -> None:
    now = 1_000_000_000
    wake(relay, road, now)
    left = one_after_another(relay, road, now, 4)
    assert left[0] == now + PIECE_NS
    assert [b - a for a, b in itertools.pairwise(left)] == 3 * [PIECE_NS]
    assert depart(relay, road, left[0]).due == left[0] + DELAY_NS


def test_a_relay_that_is_late_itself_catches_up_but_makes_no_trip_shorter(
    relay: ctypes.CDLL, road: Road
) -> None:
    wake(relay, road, 0)
    assert send(relay, road, 0) == PIECE_NS
    late = PIECE_NS + PIECE_NS // 2
    assert send(relay, road, late) == 2 * PIECE_NS
    later = 3 * PIECE_NS + PIECE_NS // 2
    assert send(relay, road, later) == later  # it should have left before, but nobody took it
    assert send(relay, road, later) == 4 * PIECE_NS
    much_later = 100 * PIECE_NS
    left = [send(relay, road, much_later) for _ in range(4)]
    assert left == [much_later, much_later, much_later + PIECE_NS, much_later + 2 * PIECE_NS]


def test_the_silence_of_one_connection_is_none_of_a_link_that_another_one_keeps_busy(
    relay: ctypes.CDLL, road: Road
) -> None:
    wake(relay, road, 0)
    send(relay, road, 0)
    late = PIECE_NS + PIECE_NS // 2
    wake(relay, road, late)
    assert send(relay, road, late) == 2 * PIECE_NS


def test_what_is_leaving_when_the_rate_changes_leaves_at_the_new_one(
    relay: ctypes.CDLL, road: Road
) -> None:
    wake(relay, road, 0)
    send(relay, road, 0)
    quick = Shape(2 * SHAPE.rate, DELAY_NS, 0)
    assert not change(relay, road, SHAPE, SILENT, 1000)
    assert change(relay, road, quick, NONE, 1000)
    assert send(relay, road, 1000) == 1000 + PIECE_NS // 2
    assert not change(relay, road, SHAPE, NONE, 1000 + PIECE_NS)


def test_what_meets_a_black_hole_is_sent_anew_when_that_is_over(
    relay: ctypes.CDLL, road: Road
) -> None:
    trip = depart(relay, road, 0)
    change(relay, road, SHAPE, SILENT, 1)
    assert not arrived(relay, road, trip, DELAY_NS)
    assert int(relay.trip_next(ctypes.byref(trip), ctypes.byref(road))) == 2**63 - 1
    healed = 5 * DELAY_NS
    change(relay, road, SHAPE, NONE, healed)
    assert not arrived(relay, road, trip, healed)
    assert trip.due == healed + DELAY_NS
    assert arrived(relay, road, trip, trip.due)


def test_what_was_cut_while_it_was_on_its_way_arrives_in_time_if_healed_before(
    relay: ctypes.CDLL, road: Road
) -> None:
    trip = depart(relay, road, 0)
    change(relay, road, SHAPE, SILENT, 1)
    change(relay, road, SHAPE, NONE, 2)
    assert arrived(relay, road, trip, DELAY_NS)


@pytest.mark.parametrize(
    ("mbit", "piece"), [(1, 1 << 10), (20, 5000), (100, 25_000), (0, 32 << 10)]
)
def test_a_piece_takes_two_milliseconds_and_after_a_silence_it_is_a_few_packets(
    relay: ctypes.CDLL, road: Road, mbit: float, piece: int
) -> None:
    change(relay, road, Shape(mbit * 1e6 / 8, 0, 0), NONE, 0)
    assert int(relay.road_piece(ctypes.byref(road), False)) == piece
    fine = int(relay.road_piece(ctypes.byref(road), True))
    assert fine == (min(piece, 4 * 1448) if mbit else piece)
