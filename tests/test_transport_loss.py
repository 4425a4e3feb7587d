"""How much of what is sent over a connection is lost."""

from __future__ import annotations

import socket
import sys

import pytest

from lightning_chaos.transport.loss import LEAST_SEGMENTS, LossMeter, Segments, segments


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_was_sent_again_was_lost() -> None:
    meter = LossMeter(Clock())
    meter.look(Segments(1000, 20))
    assert meter.share == pytest.approx(0.02)


def test_of_little_nothing_is_said() -> None:
    meter = LossMeter(Clock())
    meter.look(Segments(LEAST_SEGMENTS - 1, 10))
    assert meter.share is None


def test_what_was_lost_long_ago_is_forgotten() -> None:
    clock = Clock()
    meter = LossMeter(clock)
    meter.look(Segments(1000, 500))
    clock.now = 600.0
    meter.look(Segments(2000, 500))
    assert meter.share == pytest.approx(0.0, abs=1e-4)


def test_a_new_connection_counts_from_nothing() -> None:
    meter = LossMeter(Clock())
    meter.look(Segments(1000, 0))
    meter.look(Segments(500, 15))
    assert meter.share == pytest.approx(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts them where we look")
def test_the_system_counts_what_a_connection_sends() -> None:
    door = socket.create_server(("127.0.0.1", 0))
    with door, socket.create_connection(door.getsockname()) as near:
        far, _ = door.accept()
        with far:
            before = segments(near)
            assert before is not None
            for _ in range(50):
                near.sendall(b"x")
                assert far.recv(1) == b"x"
            after = segments(near)
    assert after is not None
    assert after.sent - before.sent >= 50
    assert after.again - before.again <= after.sent


def test_of_what_is_no_tcp_nothing_is_known() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert segments(one) is None
