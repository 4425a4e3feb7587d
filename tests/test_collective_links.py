"""Data links on real sockets: exact results, a link that breaks, speed limits, bad input."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from lightning_chaos.collective.actions import (
    AskCommit,
    Failed,
    Finished,
    Landing,
    Misbehaved,
    Purge,
    Resume,
    Send,
    Stable,
    Verdict,
)
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.collective.frames import (
    FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameKind,
    Greeting,
    pack,
    pack_greeting,
    unpack,
)
from lightning_chaos.collective.links import DataLinks, dials
from lightning_chaos.errors import WireError
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.flush import decide
from lightning_chaos.protocol.readings import Trust
from lightning_chaos.protocol.values import PROTOCOL_VERSION, Decision, Member, OpId, Uid, View
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import dial, dial_tcp
from lightning_chaos.transport.door import Kind, open_door, receive_kind
from lightning_chaos.transport.pacer import Pacer

BOUND_S = 20.0


@dataclass
class Worker:
    """An exchange, its links and the door that a peer would hold."""

    member: Member
    door: socket.socket
    rate: float | None = None
    exchange: Exchange = field(init=False)
    links: DataLinks = field(init=False)
    finished: list[tuple[OpId, bytes]] = field(default_factory=list)
    stable: list[OpId] = field(default_factory=list)
    told: list[tuple[str, Uid, str]] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    """Descriptors of the connections that its links have taken over."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.member.uid, time.monotonic)
        self.links = DataLinks(
            self.member.uid,
            "run",
            self,
            dialler=dial_tcp,
            pacer_for=lambda _: Pacer(self.rate, time.monotonic),
        )

    def tell(self, event: str, uid: Uid, reason: str = "") -> None:
        self.told.append((event, uid, reason))
        self.changed.set()

    # What the links ask and tell.

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        where = self.exchange.place(sender, frame)
        self.carry_out()
        return where

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        self.exchange.complete(sender, frame, landing)
        self.carry_out()

    def connected(self, uid: Uid) -> None:
        self.tell("connected", uid)

    def broken(self, uid: Uid, reason: str) -> None:
        self.tell("broken", uid, reason)

    def word(self, uid: Uid, reason: str) -> None:
        self.tell("word", uid, reason)

    # What a worker does.

    def carry_out(self) -> None:
        for action in self.exchange.actions():
            match action:
                case Send():
                    self.links.send(action)
                case Resume():
                    self.links.resume()
                case Purge():
                    self.links.purge()
                case Finished(op=op, result=result):
                    self.finished.append((op, b"" if result is None else result.tobytes()))
                case Stable(op=op):
                    self.stable.append(op)
                case Misbehaved(uid=uid, reason=reason):
                    self.tell("misbehaved", uid, reason)
                    self.links.drop([uid])
                case AskCommit(uid=uid):
                    self.tell("asked", uid)
                case Failed():
                    raise AssertionError(action)
        self.changed.set()

    def install(self, view: View, decision: Decision | None = None) -> None:
        self.exchange.install(view, decision)
        self.carry_out()

    def begin(self, op: OpId, vector: np.ndarray | None, weight: float = 1.0) -> None:
        self.exchange.begin(op, "step", self.member.node.encode(), vector, weight)
        self.carry_out()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_finished(self, operations: int = 1) -> None:
        await self.until(lambda: len(self.finished) >= operations)

    async def until_told(self, event: str, times: int = 1) -> None:
        await self.until(lambda: [e for e, *_ in self.told].count(event) >= times)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self.door)
            sock.setblocking(False)
            with contextlib.suppress(WireError):
                assert await receive_kind(sock) is Kind.DATA
                self.accepted.append(sock.fileno())
                self.links.adopt(sock)


@contextlib.asynccontextmanager
async def cluster(
    count: int, rate: float | None = None, rates: tuple[float | None, ...] = ()
) -> AsyncIterator[list[Worker]]:
    """Workers that are linked to each other; rates in bytes/s, for all or for each."""
    workers = []
    for i, limit in enumerate(rates or (rate,) * count):
        door = open_door("127.0.0.1", 0)
        port = door.getsockname()[1]
        workers.append(Worker(Member("abcde"[i], i + 1, "127.0.0.1", port), door, limit))
    serving = [asyncio.create_task(worker.serve()) for worker in workers]
    try:
        for worker in workers:
            for other in workers:
                if dials(worker.member, other.member):
                    await worker.links.connect(other.member, BOUND_S)
        yield workers
    finally:
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for worker in workers:
            await worker.links.aclose()
            worker.door.close()


def break_off(descriptor: int) -> None:
    """The connection breaks."""
    with socket.socket(fileno=os.dup(descriptor)) as sock, contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def view_of(epoch: int, workers: list[Worker]) -> View:
    members = tuple(worker.member for worker in workers)
    return View("run", 0, epoch, members, (), 0, mesh_plan([m.uid for m in members]))


def in_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * BOUND_S):
            await scenario()

    asyncio.run(bounded())


def mean(vectors: list[np.ndarray]) -> bytes:
    total = vectors[0].copy()
    for vector in vectors[1:]:
        total = total + vector
    return (total / np.float32(len(vectors))).tobytes()


@pytest.mark.parametrize("size", [1 << 20, 20 << 20])
def test_three_workers_get_the_bits_of_the_sum_of_large_vectors(size: int) -> None:
    async def scenario() -> None:
        async with cluster(3) as workers:
            view = view_of(1, workers)
            rng = np.random.default_rng(size)
            vectors = [rng.standard_normal(size // 4, np.float32) for _ in workers]
            for round_ in range(2):
                for worker, vector in zip(workers, vectors, strict=True):
                    if round_ == 0:
                        worker.install(view)
                    worker.begin(OpId(round_, 0), vector)
                for worker in workers:
                    await worker.until_finished(round_ + 1)
            for worker in workers:
                assert [op for op, _ in worker.finished] == [OpId(0, 0), OpId(1, 0)]
                assert worker.finished[0][1] == worker.finished[1][1] == mean(vectors)
                assert worker.stable == [OpId(0, 0)]

    in_loop(scenario)


def test_a_link_cut_in_the_middle_costs_nothing_but_a_flush() -> None:
    async def scenario() -> None:
        async with cluster(3, rate=20e6) as workers:
            a, b, c = workers
            vectors = [np.full(500_000, i, np.float32) for i in range(3)]
            for worker, vector in zip(workers, vectors, strict=True):
                worker.install(view_of(1, workers))
                worker.begin(OpId(0, 0), vector)
            # The small header is through, the large chunks are on their way.
            await a.until(lambda: a.exchange.report(0).held)
            assert not a.finished
            for descriptor in (*a.accepted, *b.accepted):
                break_off(descriptor)
            await c.until_told("broken", 2)
            await b.until_told("broken", 2)
            await b.links.connect(a.member, BOUND_S)
            await c.links.connect(a.member, BOUND_S)
            await c.links.connect(b.member, BOUND_S)
            reports = {}
            for worker in workers:
                worker.exchange.freeze()
                worker.carry_out()
                reports[worker.member.uid] = worker.exchange.report(0)
            view = view_of(2, workers)
            for worker in workers:
                worker.install(view, decide(reports, view))
            for worker in workers:
                await worker.until_finished()
                assert worker.finished == [(OpId(0, 0), mean(vectors))]

    in_loop(scenario)


def test_a_worker_killed_in_the_middle_leaves_the_others_to_do_it_again() -> None:
    async def scenario() -> None:
        async with cluster(3, rate=20e6) as workers:
            a, b, c = workers
            vectors = [np.full(500_000, i, np.float32) for i in range(3)]
            for worker, vector in zip(workers, vectors, strict=True):
                worker.install(view_of(1, workers))
                worker.begin(OpId(0, 0), vector)
            await c.links.aclose()
            reports = {}
            for worker in (a, b):
                await worker.until_told("broken")
                worker.exchange.freeze()
                worker.carry_out()
                reports[worker.member.uid] = worker.exchange.report(0)
            view = view_of(2, [a, b])
            for worker in (a, b):
                worker.links.drop([c.member.uid])
                worker.install(view, decide(reports, view))
            for worker in (a, b):
                await worker.until_finished()
                assert worker.finished == [(OpId(0, 0), mean(vectors[:2]))]

    in_loop(scenario)


def test_a_member_that_is_dropped_still_gets_what_is_queued_for_it() -> None:
    async def scenario() -> None:
        async with cluster(2, rates=(2e6, None)) as (a, b):
            vectors = [np.full(100_000, i, np.float32) for i in range(2)]
            for worker, vector in zip((a, b), vectors, strict=True):
                worker.install(view_of(1, [a, b]))
                worker.begin(OpId(0, 0), vector)
            await a.until_finished()
            assert not b.finished
            a.links.drop([b.member.uid])
            await b.until_finished()
            assert b.finished == [(OpId(0, 0), mean(vectors))]
            await b.until(lambda: not b.links.has(a.member.uid))
            assert "broken" not in [event for event, *_ in a.told]

    in_loop(scenario)


def test_a_speed_limit_holds() -> None:
    async def scenario() -> None:
        async with cluster(2, rate=10e6) as workers:
            begun = time.monotonic()
            for worker in workers:
                worker.install(view_of(1, workers))
                worker.begin(OpId(0, 0), np.ones(500_000, np.float32))
            for worker in workers:
                await worker.until_finished()
            # Half of two megabytes each way, twice.
            assert time.monotonic() - begun > 0.19

    in_loop(scenario)


def test_what_payloads_carry_tells_the_rate_of_their_link() -> None:
    async def scenario() -> None:
        # So slow that pieces are far apart even for a machine that is busy and wakes up late.
        async with cluster(2, rate=2e6) as workers:
            for worker in workers:
                worker.install(view_of(1, workers))
                worker.begin(OpId(0, 0), np.ones(600_000, np.float32))
            for worker in workers:
                await worker.until_finished()
            for worker, other in zip(workers, reversed(workers), strict=True):
                # A machine that is busy may make it slower, nothing makes it faster.
                reading = worker.links.gauging.readings({})[other.member.uid]
                assert reading.trust is Trust.MEASURED
                assert 0.4e6 < reading.bytes_per_s < 2.3e6

    in_loop(scenario)


def test_what_is_over_before_one_looks_tells_no_rate() -> None:
    async def scenario() -> None:
        async with cluster(2) as workers:
            for worker in workers:
                worker.install(view_of(1, workers))
            for round_ in range(20):
                for worker in workers:
                    worker.begin(OpId(round_, 0), np.ones(1_000, np.float32))
                for worker in workers:
                    await worker.until_finished(round_ + 1)
            assert [worker.links.gauging.readings({}) for worker in workers] == [{}, {}]

    in_loop(scenario)


def test_a_last_word_arrives_although_the_link_is_left_unread() -> None:
    async def scenario() -> None:
        async with cluster(2) as (a, b):
            b.install(view_of(1, [a, b]))
            b.begin(OpId(0, 0), np.ones(5_000_000, np.float32))
            await b.links.say_word([a.member, b.member], "its peer ended", BOUND_S)
            await a.until(lambda: ("word", b.member.uid, "its peer ended") in a.told)
            assert not any(event == "broken" for event, *_ in a.told)

    in_loop(scenario)


# ---- bad input -------------------------------------------------------------------------------


async def raw(worker: Worker, data: bytes) -> bytes:
    """Say this on a connection of one's own; returns what comes back until it is closed."""
    address = Address(worker.member.host, worker.member.port)
    sock = await dial(dial_tcp, address, Kind.DATA, BOUND_S)
    loop = asyncio.get_running_loop()
    got = b""
    try:
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(sock, data)
            while part := await loop.sock_recv(sock, 4096):
                got += part
    finally:
        sock.close()
    return got


def greeting(**values: object) -> bytes:
    fields = {"version": PROTOCOL_VERSION, "run": "run", "sender": "x/1", "to": "a/1"}
    return pack_greeting(Greeting(**{**fields, **values}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        greeting(run="another"),
        greeting(to="a/2"),
        greeting(version=PROTOCOL_VERSION + 1),
        greeting(sender="a/1"),
        b"\x00\x00",
        b"\xff\xff" + b"x" * 100,
        b"\x00\x05hello",
    ],
)
def test_a_stranger_is_closed_before_any_frame_is_read(data: bytes) -> None:
    async def scenario() -> None:
        async with cluster(1) as (a,):
            assert await raw(a, data) == b""
            assert a.told == []

    in_loop(scenario)


def test_bytes_that_are_no_frame_break_the_link_and_name_the_reason() -> None:
    async def scenario() -> None:
        async with cluster(1) as (a,):
            a.install(view_of(1, [a]))
            await raw(a, greeting() + b"\x00" * FRAME_BYTES)
            assert a.told[0] == ("connected", "x/1", "")
            event, uid, reason = a.told[1]
            assert (event, uid) == ("broken", "x/1")
            assert "not a frame" in reason

    in_loop(scenario)


def test_a_member_that_sends_a_wrong_shape_is_accused_and_dropped() -> None:
    async def scenario() -> None:
        async with cluster(1) as (a,):
            b = Member("b", 1, "127.0.0.1", 1)
            plan = mesh_plan((a.member.uid, b.uid))
            a.install(View("run", 0, 1, (a.member, b), (), 0, plan))
            a.begin(OpId(0, 0), np.ones(4, np.float32))
            frame = Frame(FrameKind.CONTRIBUTION, 0, 1, OpId(0, 0), 0, 4, 9, 1.0)
            await raw(a, greeting(sender=b.uid) + pack(frame) + bytes(9))
            assert [event for event, *_ in a.told] == ["connected", "misbehaved"]

    in_loop(scenario)


def test_a_later_connection_of_the_same_member_replaces_the_earlier_one() -> None:
    async def scenario() -> None:
        async with cluster(2) as (a, b):
            await raw_then_close(a, greeting(sender=b.member.uid))
            events = [event for event, *_ in a.told]
            assert events[:3] == ["connected", "broken", "connected"]
            await b.until_told("broken")

    in_loop(scenario)


async def raw_then_close(worker: Worker, data: bytes) -> None:
    address = Address(worker.member.host, worker.member.port)
    sock = await dial(dial_tcp, address, Kind.DATA, BOUND_S)
    try:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, data)
        assert await loop.sock_recv(sock, 4096)
    finally:
        sock.close()


def test_a_member_that_cannot_be_reached_or_is_another_one_is_an_os_error() -> None:
    async def scenario() -> None:
        async with cluster(2) as (a, b):
            gone = Member("c", 9, "127.0.0.1", 1)
            with pytest.raises(OSError):  # noqa: PT011
                await b.links.connect(gone, BOUND_S)
            other = Member("c", 9, "127.0.0.1", a.member.port)
            with pytest.raises(OSError, match="closed the connection"):
                await b.links.connect(other, BOUND_S)

    in_loop(scenario)


def test_a_header_survives_packing_and_nonsense_is_refused() -> None:
    frame = Frame(FrameKind.RESULT, 7, 3, OpId(-1, 2), 4, 1 << 40, 12, 1.5)
    assert unpack(pack(frame)) == frame
    data = bytearray(pack(frame))
    for i, value in ((0, 0), (1, 9), (3, 1)):
        with pytest.raises(WireError):
            unpack(data[:i] + bytes([value]) + data[i + 1 :])
    too_long = Frame(FrameKind.RESULT, 7, 3, OpId(0, 0), 0, 0, MAX_PAYLOAD_BYTES + 1, 1.0)
    with pytest.raises(WireError, match="allowed are"):
        unpack(pack(too_long))
