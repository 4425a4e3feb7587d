"""How much of what is sent over a connection is lost."""

from __future__ import annotations

import socket
import sys
import threading

import pytest

from lightning_chaos.testing.fixtures import MakeNamespaces
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.transport.loss import LEAST_SEGMENTS, LossMeter, Segments, segments

BOUND_S = 10.0


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


@pytest.mark.root
@pytest.mark.parametrize("loss_percent", [0.0, 1.0, 3.0])
def test_it_is_what_the_network_has_lost(namespaces: MakeNamespaces, loss_percent: float) -> None:
    network = namespaces(2)
    network.shape(Shape(rate_mbit=100, delay_ms=5, loss_percent=loss_percent), "n1", "n2")
    with network.socket("n2") as door, network.socket("n1") as near:
        door.bind((network.address_of("n2"), 5000))
        door.listen()
        near.connect(door.getsockname())
        far, _ = door.accept()
        reading = threading.Thread(target=read_all, args=(far,))
        reading.start()
        near.settimeout(BOUND_S)
        near.sendall(bytes(1_500_000))
        near.shutdown(socket.SHUT_WR)
        reading.join(BOUND_S)
        counted = segments(near)
    assert counted is not None
    lost = network.counts()["n1", "n2"].lost
    # Some are sent again without need; of those lost a few may have carried no data.
    assert lost - 2 <= counted.again <= 1.2 * lost + 3


def read_all(sock: socket.socket) -> None:
    with sock:
        while sock.recv(1 << 16):
            pass
