"""Trains over data links that lie idle, and what else is read of them, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from test_collective_links import Worker, cluster, greeting, in_loop, raw, view_of

from lightning_chaos.collective import gauging, link
from lightning_chaos.collective.frames import FRAME_BYTES, Frame, FrameKind, pack
from lightning_chaos.protocol.readings import Reading, Trust
from lightning_chaos.protocol.values import OpId
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import dial, dial_tcp
from lightning_chaos.transport.door import Kind
from lightning_chaos.transport.loss import LEAST_SEGMENTS
from lightning_chaos.transport.packets import PacketSocket
from lightning_chaos.transport.train import TRAIN_BYTES

BOUND_S = 20.0


@pytest.fixture
def without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains may follow each other at once."""
    for name in ("LINK_S", "PACE_S", "GIVE_S"):
        monkeypatch.setattr(gauging, name, 0.0)


def reading_of(worker: Worker, other: Worker) -> Reading | None:
    return worker.links.gauging.readings({}).get(other.member.uid)


async def seen(worker: Worker, other: Worker) -> Reading:
    async with asyncio.timeout(BOUND_S):
        while (reading := reading_of(worker, other)) is None:
            await asyncio.sleep(0.01)
    return reading


@pytest.mark.usefixtures("without_rest")
def test_a_link_that_was_never_used_is_measured_by_a_train_that_no_operation_sees() -> None:
    async def scenario() -> None:
        async with cluster(2) as (a, b):
            a.links.gauging.ask([b.member.uid], busy=False)
            assert (await seen(a, b)).bytes_per_s > TRAIN_BYTES / 2 / BOUND_S
            assert reading_of(b, a) is None  # it was not b that asked
            assert [event for event, *_ in a.told + b.told] == ["connected"] * 2

    in_loop(scenario)


@pytest.mark.skipif(sys.platform != "linux", reason="the stamps are Linux's")
@pytest.mark.usefixtures("without_rest")
def test_a_train_tells_how_it_came_though_it_is_read_all_at_once() -> None:
    async def scenario() -> None:
        async with cluster(1) as (a,):
            a.install(view_of(1, [a]))
            loop = asyncio.get_running_loop()
            with await dial(
                dial_tcp, Address(a.member.host, a.member.port), Kind.DATA, BOUND_S
            ) as sock:
                await loop.sock_sendall(sock, greeting())
                await a.until_told("connected")
                (uid,) = a.links.known
                a.links.gauging.ask([uid], busy=False)
                await until_asked(sock)
                giver = threading.Thread(target=give_slowly, args=(sock,))
                giver.start()
                giver.join()  # the loop stands still until all of it is there
                async with asyncio.timeout(BOUND_S):
                    while (reading := a.links.gauging.readings({}).get(uid)) is None:
                        await asyncio.sleep(0.01)
            assert reading.trust is Trust.TRAIN
            assert reading.bytes_per_s < 2 * PIECE_BYTES / EVERY_S

    in_loop(scenario)


EVERY_S = 0.0003
"""A slow giver writes that often."""
PIECE_BYTES = 1024
"""And so much: the kernel may join up to 17 packets that wait, under the stamp of the last; larger
ones would leave it too few stamps to tell anything."""


async def until_asked(sock: socket.socket) -> None:
    """The other end's greeting has come, and the frame behind it that asks."""
    loop, heard = asyncio.get_running_loop(), b""
    async with asyncio.timeout(BOUND_S):
        while len(heard) < 2 or len(heard) < 2 + int.from_bytes(heard[:2], "big") + FRAME_BYTES:
            heard += await loop.sock_recv(sock, 4096)


def give_slowly(sock: socket.socket) -> None:
    sock.setblocking(True)
    sock.sendall(pack(Frame(FrameKind.TRAIN, 0, 0, OpId(0, 0), 0, 0, TRAIN_BYTES, 0.0)))
    for _ in range(TRAIN_BYTES // PIECE_BYTES):
        time.sleep(EVERY_S)
        sock.sendall(bytes(PIECE_BYTES))


@pytest.mark.skipif(sys.platform != "linux", reason="the stamps are Linux's")
@pytest.mark.usefixtures("without_rest")
def test_a_train_is_read_by_packets_and_gradients_as_much_as_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[int] = []

    class Watched(PacketSocket):
        def recv_into(self, *arguments: Any) -> int:
            reads.append(super().recv_into(*arguments))
            return reads[-1]

    monkeypatch.setattr(link, "PacketSocket", Watched)

    async def scenario() -> None:
        async with cluster(2) as (a, b):
            a.links.gauging.ask([b.member.uid], busy=False)
            await seen(a, b)
            assert sum(reads) > TRAIN_BYTES
            assert max(reads) <= 1448
            for worker in (a, b):
                worker.install(view_of(1, [a, b]))
                worker.begin(OpId(0, 0), np.ones(1 << 20, np.float32))
            for worker in (a, b):
                await worker.until_finished()
            assert max(reads) > 1448

    in_loop(scenario)


@pytest.mark.usefixtures("without_rest")
def test_operations_go_on_amid_trains() -> None:
    async def scenario() -> None:
        async with cluster(2) as (a, b):
            for worker in (a, b):
                worker.install(view_of(1, [a, b]))
            for round_ in range(20):
                for worker in (a, b):
                    worker.links.gauging.ask([a.member.uid, b.member.uid], busy=False)
                    worker.begin(OpId(round_, 0), np.ones(50_000, np.float32))
                for worker in (a, b):
                    await worker.until_finished(round_ + 1)
            assert all(result == np.ones(50_000, np.float32).tobytes() for _, result in a.finished)

    in_loop(scenario)


@pytest.mark.usefixtures("without_rest")
def test_a_train_waits_for_the_end_of_an_operation_but_not_for_ever() -> None:
    async def scenario() -> None:
        async with cluster(2) as (a, b):
            for _ in range(gauging.MOST_PUT_OFF):
                a.links.gauging.ask([b.member.uid], busy=True)
            await asyncio.sleep(0.05)
            assert reading_of(a, b) is None
            a.links.gauging.ask([b.member.uid], busy=True)
            await seen(a, b)

    in_loop(scenario)


def test_links_that_lie_idle_are_asked_in_turn_and_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauging, "PACE_S", 60.0)
    monkeypatch.setattr(gauging, "GIVE_S", 0.0)

    async def scenario() -> None:
        async with cluster(3) as (a, b, c):
            others = [b.member.uid, c.member.uid]
            a.links.gauging.ask(others, busy=False)
            a.links.gauging.ask(others, busy=False)  # too early
            await seen(a, b)
            assert reading_of(a, c) is None
            monkeypatch.setattr(gauging, "PACE_S", 0.0)
            a.links.gauging.ask(others, busy=False)
            await seen(a, c)
            first = await seen(a, b)
            a.links.gauging.ask(others, busy=False)  # both have told something of late
            await asyncio.sleep(0.05)
            again = await seen(a, b)
            assert again.bytes_per_s == first.bytes_per_s

    in_loop(scenario)


def test_who_is_asked_too_often_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauging, "GIVE_S", 60.0)
    ask = pack(Frame(FrameKind.ASK, 0, 0, OpId(0, 0), 0, TRAIN_BYTES, 0, 0.0))
    end = b"\x00" * len(ask)  # no frame: the link ends here

    async def scenario() -> None:
        async with cluster(1) as (a,):
            a.install(view_of(1, [a]))
            assert len(await raw(a, greeting() + 5 * ask + end)) < 2 * TRAIN_BYTES

    in_loop(scenario)


@pytest.mark.parametrize(
    ("kind", "offset", "length"),
    [
        (FrameKind.ASK, 0, 0),
        (FrameKind.ASK, TRAIN_BYTES + 1, 0),
        (FrameKind.ASK, 100, 1),
        (FrameKind.TRAIN, 0, 0),
        (FrameKind.TRAIN, 0, TRAIN_BYTES + 1),
    ],
)
def test_a_train_that_cannot_be_breaks_the_link(kind: FrameKind, offset: int, length: int) -> None:
    async def scenario() -> None:
        async with cluster(1) as (a,):
            a.install(view_of(1, [a]))
            frame = Frame(kind, 0, 0, OpId(0, 0), 0, offset, length, 0.0)
            await raw(a, greeting() + pack(frame) + b"\x00" * length)
            assert [event for event, *_ in a.told] == ["connected", "broken"]
            assert "allowed are" in a.told[1][2]

    in_loop(scenario)


def test_a_train_that_nobody_asked_for_is_swallowed() -> None:
    async def scenario() -> None:
        async with cluster(1) as (a,):
            a.install(view_of(1, [a]))
            frame = Frame(FrameKind.TRAIN, 0, 0, OpId(0, 0), 0, 0, TRAIN_BYTES, 0.0)
            await raw(a, greeting() + pack(frame) + bytes(TRAIN_BYTES) + bytes(64))
            assert "not a frame" in a.told[1][2]  # what comes behind it is looked at again
            assert a.links.gauging.readings({}) == {}

    in_loop(scenario)


def test_the_loss_of_what_is_sent_is_told_once_enough_was_sent() -> None:
    async def scenario() -> None:
        async with cluster(2) as (a, b):
            assert a.links.gauging.losses() == {}
            for worker in (a, b):
                worker.install(view_of(1, [a, b]))
            for round_ in range(LEAST_SEGMENTS):
                for worker in (a, b):
                    worker.begin(OpId(round_, 0), np.ones(8, np.float32))
                for worker in (a, b):
                    await worker.until_finished(round_ + 1)
            assert a.links.gauging.losses()[b.member.uid] < 0.05

    in_loop(scenario)
