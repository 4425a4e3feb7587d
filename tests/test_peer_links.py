"""Control connections are greeted, held, dialled again and reported."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
from places import EmptyPlace

from lightning_chaos.errors import JoinError
from lightning_chaos.peer.caller import Caller
from lightning_chaos.peer.greeting import greet
from lightning_chaos.peer.links import Links
from lightning_chaos.peer.machine import machine_key
from lightning_chaos.protocol.events import Event, Heard, Linked, Unlinked
from lightning_chaos.protocol.messages import Hello, Refuse, Status, StopRequest, decode, encode
from lightning_chaos.protocol.values import PROTOCOL_VERSION, Member
from lightning_chaos.transport.address import Address, parse_address
from lightning_chaos.transport.channel import Channel
from lightning_chaos.transport.dial import dial, dial_tcp
from lightning_chaos.transport.door import Kind, open_door, receive_kind

BOUND_S = 20.0
LONG_S = 4.0
"""Longer than a busy machine may need for what takes milliseconds."""
SHORT_S = 0.4
"""For those who wait it out."""


async def until(condition: Callable[[], bool], bound_s: float = BOUND_S) -> None:
    async with asyncio.timeout(bound_s):
        while not condition():
            await asyncio.sleep(0.002)


class Peer:
    """Links with a door; remembers what was reported and which sockets were dialled."""

    def __init__(
        self,
        name: str,
        group: asyncio.TaskGroup,
        *,
        run: str,
        pid: int,
        insecure: bool,
        timeout_s: float,
    ) -> None:
        self._place = EmptyPlace()
        self.door = open_door(*self._place.address)
        self.me = Member(name, time.time_ns(), *self._place.address, machine_key(), pid)
        self.events: list[Event] = []
        self.view: set[str] = set()
        self.dialled: list[socket.socket] = []
        self.links = Links(
            Caller(self.me, run, insecure=insecure, dialler=self._dial),
            timeout_of=lambda _: timeout_s,
            emit=self.events.append,
            in_view=lambda uid: uid in self.view,
            spawn=group.create_task,
        )
        self._group = group
        self._accepting = group.create_task(self._accept())

    async def _dial(self, address: Address, timeout_s: float) -> socket.socket:
        sock = await dial_tcp(address, timeout_s)
        self.dialled.append(sock.dup())
        return sock

    async def _accept(self) -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(self.door)
            assert await receive_kind(sock) is Kind.CONTROL
            self._group.create_task(self.links.adopt(sock))

    def cut(self) -> None:
        """Break every connection that this peer has dialled, as a network would."""
        for sock in self.dialled:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.forget_dialled()

    def forget_dialled(self) -> None:
        """Close this test's copies, which keep a connection open after its owner closed it."""
        for sock in self.dialled:
            sock.close()
        self.dialled.clear()

    def shut_door(self) -> None:
        self._accepting.cancel()
        self.door.close()

    @property
    def heard(self) -> list[str]:
        found = [e.message for e in self.events if isinstance(e, Heard)]
        return [m.reason for m in found if isinstance(m, StopRequest)]

    @property
    def unlinked(self) -> list[Unlinked]:
        return [e for e in self.events if isinstance(e, Unlinked)]

    async def aclose(self) -> None:
        await self.links.aclose()
        self.shut_door()
        self._place.close()
        self.forget_dialled()


@contextlib.asynccontextmanager
async def peers(
    *names: str,
    run: str = "r",
    pid: int | None = None,
    insecure: bool = False,
    timeout_s: float = LONG_S,
) -> AsyncIterator[list[Peer]]:
    pid = os.getpid() if pid is None else pid
    async with asyncio.TaskGroup() as group:
        found = [
            Peer(name, group, run=run, pid=pid, insecure=insecure, timeout_s=timeout_s)
            for name in names
        ]
        try:
            yield found
        finally:
            for peer in found:
                await peer.aclose()


@contextlib.asynccontextmanager
async def stranger(peer: Peer) -> AsyncIterator[Channel]:
    """A control connection to the peer on which nothing has been said."""
    sock = await dial(dial_tcp, parse_address(peer.me.address), Kind.CONTROL, BOUND_S)
    channel = await Channel.over(sock)
    try:
        yield channel
    finally:
        channel.abort()
        await channel.wait_closed()


def test_both_sides_learn_of_a_link_and_hear_each_other() -> None:
    async def scene() -> None:
        async with peers("a", "b") as (a, b):
            a.links.connect(b.me)
            await until(lambda: a.events == [Linked(b.me)] and b.events == [Linked(a.me)])
            a.links.send(b.me.uid, StopRequest("from a"))
            b.links.send(a.me.uid, StopRequest("from b"))
            await until(lambda: b.heard == ["from a"] and a.heard == ["from b"])

    asyncio.run(scene())


def test_a_control_connection_asks_to_pass_bulk_data() -> None:
    async def scene() -> None:
        async with peers("a", "b") as (a, b):
            a.links.connect(b.me)
            await until(lambda: a.events == [Linked(b.me)])
            (sock,) = a.dialled
            assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 18 << 2
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 6

    asyncio.run(scene())


def test_two_connections_between_a_pair_are_one_link() -> None:
    async def scene() -> None:
        async with peers("a", "b") as (a, b):
            a.links.connect(b.me)
            b.links.connect(a.me)
            await until(lambda: len(a.dialled) == len(b.dialled) == 1)
            await until(lambda: bool(a.events) and bool(b.events))
            a.cut()
            while not (a.heard and b.heard):
                a.links.send(b.me.uid, StopRequest("still there"))
                b.links.send(a.me.uid, StopRequest("still there"))
                await asyncio.sleep(0.005)
            assert [e for e in a.events if isinstance(e, Linked)] == [Linked(b.me)]
            assert not a.unlinked
            assert not b.unlinked

    asyncio.run(scene())


def test_a_broken_connection_is_dialled_again_without_a_report() -> None:
    async def scene() -> None:
        async with peers("a", "b") as (a, b):
            b.view.add(a.me.uid)
            a.links.connect(b.me)
            await until(lambda: bool(a.events) and bool(b.events))
            a.cut()
            await until(lambda: len(a.dialled) + len(b.dialled) >= 1)
            a.events.clear()
            b.events.clear()
            while not (a.heard and b.heard):
                a.links.send(b.me.uid, StopRequest("again"))
                b.links.send(a.me.uid, StopRequest("again"))
                await asyncio.sleep(0.005)
            assert not a.unlinked
            assert not b.unlinked

    asyncio.run(scene())


def test_a_link_that_cannot_be_dialled_again_is_reported_by_both_sides() -> None:
    async def scene() -> None:
        async with peers("a", "b") as (a, b):
            a.links.connect(b.me)
            await until(lambda: bool(a.events) and bool(b.events))
            # A link that is lost before that is dialled on and on for as long as a new one.
            await until(lambda: not a.links._dialling)
            b.shut_door()
            started = time.monotonic()
            a.cut()
            await until(lambda: len(a.unlinked) == len(b.unlinked) == 1)
            assert time.monotonic() - started < LONG_S / 2, "who is refused need not wait"
            assert "connection refused" in a.unlinked[0].reason
            assert a.links.up == b.links.up == frozenset()

    asyncio.run(scene())


def test_a_member_that_is_not_there_is_reported_after_the_timeout() -> None:
    async def scene() -> None:
        async with peers("a", "b", timeout_s=SHORT_S) as (a, b):
            b.shut_door()
            started = time.monotonic()
            a.links.connect(b.me)
            await until(lambda: len(a.unlinked) == 1)
            assert time.monotonic() - started > 0.75 * SHORT_S

    asyncio.run(scene())


def test_a_member_of_the_view_is_dialled_until_it_is_back() -> None:
    async def scene() -> None:
        async with peers("a", "b", timeout_s=SHORT_S) as (a, b):
            b.shut_door()
            a.view.add(b.me.uid)
            a.links.connect(b.me)
            await until(lambda: len(a.unlinked) == 1)
            b.door = open_door(b.me.host, b.me.port)
            accepting = asyncio.create_task(b._accept())
            await until(lambda: Linked(b.me) in a.events)
            accepting.cancel()
            await asyncio.wait({accepting})

    asyncio.run(scene())


@pytest.mark.skipif(not machine_key(), reason="needs /proc to see other processes")
def test_a_peer_whose_process_is_gone_is_not_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()

    async def scene() -> None:
        async with peers("a") as (a,), peers("b", pid=child.pid) as (b,):
            # The door is still open, as when a worker lives on after its peer.
            b._accepting.cancel()
            started = time.monotonic()
            a.links.connect(b.me)
            await until(lambda: len(a.unlinked) == 1)
            assert time.monotonic() - started < LONG_S
            assert "its process is gone" in a.unlinked[0].reason

    asyncio.run(scene())


def test_hanging_up_sends_what_is_queued_and_is_not_reported_here() -> None:
    async def scene() -> None:
        async with peers("a", "b") as (a, b):
            a.links.connect(b.me)
            await until(lambda: bool(a.events) and bool(b.events))
            a.forget_dialled()
            for k in range(200):
                a.links.send(b.me.uid, StopRequest(f"{k} {'x' * 5000}"))
            a.links.hang_up(b.me.uid)
            await until(lambda: len(b.heard) == 200 and len(b.unlinked) == 1)
            assert not a.unlinked

    asyncio.run(scene())


def test_an_address_off_this_machine_is_never_dialled_in_the_clear() -> None:
    async def scene() -> None:
        async with peers("a", timeout_s=SHORT_S) as (a,):
            a.links.connect(Member("far", 1, "10.0.0.1", 4711))
            await until(lambda: len(a.unlinked) == 1)
            assert "insecure=True" in a.unlinked[0].reason
            assert not a.dialled

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("host", "port", "why"),
    [("127.0.0.1", 70000, "no such port"), ("a..b", 80, "is no address"), ("a\0b", 80, "")],
)
def test_a_member_with_an_impossible_address_is_reported_and_the_peer_goes_on(
    host: str, port: int, why: str
) -> None:
    async def scene() -> None:
        async with peers("a", insecure=True, timeout_s=SHORT_S) as (a,):
            a.links.connect(Member("odd", 1, host, port))
            await until(lambda: len(a.unlinked) == 1)
            assert f"{host}:{port}" in a.unlinked[0].reason
            assert why in a.unlinked[0].reason

    asyncio.run(scene())


def test_an_own_address_is_recognised() -> None:
    async def scene() -> None:
        async with peers("a") as (a,):
            assert await a.links.meet(parse_address(a.me.address), BOUND_S) == a.me
            assert not a.events

    asyncio.run(scene())


# ---- the greeting --------------------------------------------------------------------------


def test_both_sides_of_two_runs_learn_why_they_part() -> None:
    async def scene() -> None:
        async with peers("a", run="theirs") as (a,), stranger(a) as channel:
            me = Member("b", 1, "127.0.0.1", 1)
            channel.send(encode(Hello(PROTOCOL_VERSION, "ours", me)))
            assert isinstance(decode(await channel.receive() or b""), Hello)
            refusal = decode(await channel.receive() or b"")
            assert isinstance(refusal, Refuse)
            assert "'theirs'" in refusal.reason
            assert await channel.receive() is None
            assert not a.events

    asyncio.run(scene())


def test_another_protocol_version_is_refused_with_both_numbers() -> None:
    async def scene() -> None:
        async with peers("a") as (a,), stranger(a) as channel:
            channel.send(encode(Hello(99, "r", Member("b", 1, "127.0.0.1", 1))))
            assert isinstance(decode(await channel.receive() or b""), Hello)
            refusal = decode(await channel.receive() or b"")
            assert isinstance(refusal, Refuse)
            assert "version 99" in refusal.reason
            assert f"version {PROTOCOL_VERSION}" in refusal.reason

    asyncio.run(scene())


@pytest.mark.parametrize("first", [b"\xc1", b"", encode(StopRequest("x")), b"\x00" * 1000])
def test_a_caller_that_does_not_greet_is_shut_out_and_the_peer_goes_on(first: bytes) -> None:
    async def scene() -> None:
        async with peers("a", "b") as (a, b), stranger(a) as channel:
            channel.send(first)
            with contextlib.suppress(Exception):
                while await channel.receive() is not None:
                    pass
            assert not a.events
            b.links.connect(a.me)
            await until(lambda: a.events == [Linked(b.me)])

    asyncio.run(scene())


def test_a_caller_that_says_nothing_is_shut_out_in_time() -> None:
    async def scene() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            channel = await Channel.over(ours)
            with pytest.raises(OSError, match="did not say who it is"):
                await greet(channel, Member("a", 1, "127.0.0.1", 1), "r", timeout_s=0.05)
            assert channel.closing
            await channel.wait_closed()

    asyncio.run(scene())


def test_a_greeting_from_an_impossible_port_is_refused() -> None:
    async def scene() -> None:
        async with peers("a") as (a,), stranger(a) as channel:
            await greet(channel, Member("b", 1, "127.0.0.1", 70000), "r")
            refusal = decode(await channel.receive() or b"")
            assert isinstance(refusal, Refuse)
            assert "70000" in refusal.reason
            assert not a.events

    asyncio.run(scene())


def test_who_is_refused_hears_the_other_sides_reason() -> None:
    async def scene() -> None:
        ours, theirs = socket.socketpair()
        channel, other = await Channel.over(ours), await Channel.over(theirs)
        other.send(encode(Refuse("no more seats")))
        with pytest.raises(JoinError, match="no more seats"):
            await greet(channel, Member("a", 1, "127.0.0.1", 1), "r")
        for end in (channel, other):
            end.abort()
            await end.wait_closed()

    asyncio.run(scene())


def test_a_malformed_message_closes_the_connection_and_is_never_heard() -> None:
    async def scene() -> None:
        async with peers("a") as (a,), stranger(a) as channel:
            me = Member("b", 1, "127.0.0.1", 0)
            assert await greet(channel, me, "r") == a.me
            channel.send(b"\x93\xa5Heard\x01\x02")
            await until(lambda: len(a.unlinked) == 1)
            assert "not a message of protocol" in a.unlinked[0].reason
            assert a.events[0] == Linked(me)
            assert not a.heard

    asyncio.run(scene())


def test_what_is_said_while_a_connection_is_dialled_again_is_heard_afterwards() -> None:
    async def scene() -> None:
        async with peers("a", "b") as (a, b):
            a.view.add(b.me.uid)
            b.view.add(a.me.uid)
            a.links.connect(b.me)
            await until(lambda: bool(a.events) and bool(b.events))
            a.links.redial(b.me.uid, "for a test")
            a.links.send(b.me.uid, StopRequest("meanwhile"))
            await until(lambda: b.heard == ["meanwhile"])
            assert not a.unlinked

    asyncio.run(scene())


def test_what_could_not_be_sent_comes_back_with_the_news_that_the_link_is_lost() -> None:
    async def scene() -> None:
        async with peers("a", "b") as (a, b):
            a.links.connect(b.me)
            await until(lambda: bool(a.events) and bool(b.events))
            b.shut_door()
            a.links.redial(b.me.uid, "for a test")
            a.links.send(b.me.uid, StopRequest("meanwhile"))
            a.links.send(b.me.uid, Status(1, 1))
            await until(lambda: len(a.unlinked) == 1)
            assert a.unlinked[0].unsent == (StopRequest("meanwhile"),)

    asyncio.run(scene())


def test_a_link_that_is_lost_the_moment_its_dialling_ends_is_dialled_again() -> None:
    async def scene() -> None:
        async with peers("a", "b") as (a, b):
            spawn, lost = a.links._spawn, asyncio.Event()

            def spawn_and_lose(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
                task = spawn(work)
                if not lost.is_set() and b.me.uid not in a.links.up:
                    task.add_done_callback(lambda _: lose())
                return task

            def lose() -> None:
                lost.set()
                a.links.redial(b.me.uid, "silent")

            a.links._spawn = spawn_and_lose
            a.links.connect(b.me)
            await lost.wait()
            while not b.heard:
                a.links.send(b.me.uid, StopRequest("again"))
                await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(scene(), BOUND_S))


def test_a_neighbour_that_reads_nothing_is_let_go() -> None:
    """A visitor that was stopped (Ctrl-Z) would be kept heartbeats for, for as long as it is."""

    async def scene() -> None:
        async with peers("a") as (a,), stranger(a) as channel:
            visitor = Member("visitor", 1, "127.0.0.1", 0)
            channel.send(encode(Hello(PROTOCOL_VERSION, "r", visitor)))
            await until(lambda: a.events == [Linked(visitor)])
            channel._transport.pause_reading()
            heartbeat = Status(1, 1, waiting="x" * 50_000)
            for _ in range(2000):
                a.links.send(visitor.uid, heartbeat)
                await asyncio.sleep(0)
                if a.unlinked:
                    return
            raise AssertionError("it is kept")

    asyncio.run(scene())
