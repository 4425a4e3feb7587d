"""One direction of a link through a relay: when pieces arrive, in time that only a test moves."""

from __future__ import annotations

import asyncio
import itertools
import random
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

from lightning_chaos.testing.lab.conditions import Cut, Shape
from lightning_chaos.testing.lab.road import Road

PIECE = 1000
PIECE_S = 0.002


class Loop(asyncio.SelectorEventLoop):
    """Waits no time: its clock goes on instead."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        self._loop.now += timeout or 0.0
        return super().select(0)


def play(scene: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scene)


def the_loop() -> Loop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    return loop


def road(delay_ms: float = 0.0) -> Road:
    """Carries a piece in two milliseconds."""
    made = Road(random.Random(1))
    made.change(Shape(rate_mbit=PIECE * 8 / 1e6 / PIECE_S, delay_ms=delay_ms), Cut.NONE)
    return made


def test_what_follows_a_silence_comes_at_the_rate_from_the_first_piece_on() -> None:
    async def scene() -> None:
        link = road(delay_ms=10)
        the_loop().now += 1.0
        link.idled()
        due = [await link.send(PIECE) for _ in range(4)]
        assert due[0] == pytest.approx(1.0 + PIECE_S + 0.010)
        assert [b - a for a, b in itertools.pairwise(due)] == pytest.approx(3 * [PIECE_S])

    play(scene())


def test_a_relay_that_is_late_itself_catches_up_but_makes_no_trip_shorter() -> None:
    async def scene() -> None:
        link = road(delay_ms=10)
        due = [await link.send(PIECE)]
        the_loop().now += 0.5 * PIECE_S
        due += [await link.send(PIECE) for _ in range(3)]
        assert due == pytest.approx([k * PIECE_S + 0.010 for k in (1, 2, 3, 4)])
        the_loop().now += 1.5 * PIECE_S
        late = the_loop().now
        assert await link.send(PIECE) == pytest.approx(late + 0.010)
        assert await link.send(PIECE) == pytest.approx(6 * PIECE_S + 0.010)

    play(scene())


def test_the_silence_of_one_connection_is_none_of_a_link_that_another_one_keeps_busy() -> None:
    async def scene() -> None:
        link = road()
        first = await link.send(PIECE)
        second = asyncio.ensure_future(link.send(PIECE))
        await asyncio.sleep(0)  # now it waits for its turn
        the_loop().now += 1.5 * PIECE_S
        link.idled()
        assert await second - first == pytest.approx(PIECE_S)
        assert await link.send(PIECE) - first == pytest.approx(2 * PIECE_S)

    play(scene())


@pytest.mark.parametrize("mbit", [20, 100, 500, 1000])
def test_fine_pieces_are_a_fifth_of_a_millisecond_or_a_part_of_a_packet_train(
    mbit: float,
) -> None:
    async def scene() -> None:
        link = Road(random.Random(1))
        link.change(Shape(rate_mbit=mbit), Cut.NONE)
        fifth_bytes = mbit * 1e6 / 8 * 0.0002
        assert link.fine_piece_bytes == min(max(fifth_bytes, 4 << 10), 16 << 10)

    play(scene())


def test_on_a_slow_link_all_pieces_are_fine() -> None:
    async def scene() -> None:
        link = Road(random.Random(1))
        link.change(Shape(rate_mbit=1), Cut.NONE)
        assert link.fine_piece_bytes == link.piece_bytes == 1 << 10

    play(scene())
