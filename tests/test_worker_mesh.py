"""Data links of workers to those with whom their views link them, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from test_collective_links import break_off

from lightning_chaos.collective.actions import Landing, Verdict
from lightning_chaos.collective.frames import Frame
from lightning_chaos.errors import WireError
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import Member, Uid, View, pair_of
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import dial_tcp
from lightning_chaos.transport.door import Kind, open_door, receive_kind
from lightning_chaos.transport.pacer import Pacer
from lightning_chaos.worker.mesh import Mesh

BOUND_S = 20.0
SOON_S = 0.5
"""How long mending may take where a link is not to come up; else as long as there is."""


@dataclass
class Owner:
    """What a station is to its mesh; its views are told by the test."""

    name: str
    views: list[View] = field(default_factory=list)
    out_of_play: bool = False
    unreachable: bool = False
    """The others, for this one."""
    told: list[local.Local] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    """Descriptors of the connections that its links have taken over."""
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.door = open_door("127.0.0.1", 0)
        port = self.door.getsockname()[1]
        self.me = Member(self.name, ord(self.name), "127.0.0.1", port)
        self.mesh = Mesh(
            self.me,
            "run",
            BOUND_S,
            self,
            dialler=self.dial,
            pacer_for=lambda _: Pacer(None, time.monotonic),
            dial_tls=None,
            accept_tls=None,
        )
        self.spawn(self.serve())

    async def dial(self, address: Address, timeout_s: float) -> socket.socket:
        if self.unreachable:
            raise OSError("no way there")
        return await dial_tcp(address, timeout_s)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self.door)
            sock.setblocking(False)
            with contextlib.suppress(WireError):  # who dialled has given up
                assert await receive_kind(sock) is Kind.DATA
                self.accepted.append(sock.fileno())
                self.mesh.adopt(sock)

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        raise AssertionError(f"{sender} sent {frame}")

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        raise AssertionError(f"{sender} sent {frame}")

    def tell_peer(self, message: local.Local) -> None:
        self.told.append(message)
        self.changed.set()

    def links_changed(self) -> None:
        self.changed.set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def install(self, *views: View) -> None:
        """These run from now on, the newest last."""
        self.views = list(views)
        self.mesh.meet(views[-1])

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def says(self) -> tuple[Uid, str]:
        """Whose link the peer is told of next, and what."""
        await self.until(lambda: self.told)
        match self.told.pop(0):
            case local.Broken(uid=uid, mended=mended):
                return uid, "frames were lost" if mended else "broken"
            case local.Restored(uid=uid):
                return uid, "works again"
            case other:
                raise AssertionError(other)

    async def until_linked(self, *others: Owner) -> None:
        uids = {other.me.uid for other in others}
        await self.until(lambda: self.mesh.linked == uids)


@contextlib.asynccontextmanager
async def owners(names: str) -> AsyncIterator[list[Owner]]:
    found = [Owner(name) for name in names]
    try:
        yield found
    finally:
        for owner in found:
            owner.out_of_play = True
            for task in owner.tasks:
                task.cancel()
            await asyncio.gather(*owner.tasks, return_exceptions=True)
            await owner.mesh.aclose()
            owner.door.close()


def view_of(epoch: int, members: list[Owner], *missing: tuple[Owner, Owner]) -> View:
    pairs = tuple(sorted(pair_of(a.me.uid, b.me.uid) for a, b in missing))
    uids = [owner.me.uid for owner in members]
    everybody = tuple(owner.me for owner in members)
    return View("run", 0, epoch, everybody, (), 0, mesh_plan(uids, pairs), pairs)


def three(epoch: int, oldest: Owner, a: Owner, b: Owner, *, linked: bool = True) -> View:
    """Of these, with or without the link between the younger two; of whom b dials."""
    return view_of(epoch, [oldest, a, b], *([] if linked else [(a, b)]))


def in_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * BOUND_S):
            await scenario()

    asyncio.run(bounded())


def test_a_link_that_no_view_has_is_made_all_the_same() -> None:
    async def scenario() -> None:
        async with owners("abc") as (a, b, c):
            for owner in (a, b, c):
                owner.install(view_of(1, [a, b, c], (a, c)))
            for one, other in ((a, c), (c, a)):
                assert await one.says() == (other.me.uid, "broken")
                assert await one.says() == (other.me.uid, "works again")
                one.install(view_of(2, [a, b, c]))
            await a.until_linked(b, c)
            await c.until_linked(a, b)
            assert [len(owner.accepted) for owner in (a, b, c)] == [2, 1, 0]
            assert a.told == b.told == c.told == []

    in_loop(scenario)


def test_a_link_that_a_view_gave_up_is_made_anew_before_it_is_counted_on() -> None:
    async def scenario() -> None:
        async with owners("abc") as (a, b, c):
            whole, without = view_of(1, [a, b, c]), view_of(2, [a, b, c], (a, c))
            for owner in (a, b, c):
                owner.install(whole)
            await a.until_linked(b, c)
            await c.until_linked(a, b)
            for owner in (a, b, c):
                owner.install(whole, without)
                owner.mesh.let_missing_go()
            assert a.told == c.told == []  # this round still uses it
            for owner in (a, c):
                owner.views = [without]
            a.mesh.let_missing_go()
            assert await a.says() == (c.me.uid, "broken")
            assert await a.says() == (c.me.uid, "works again")
            assert await c.says() == (a.me.uid, "works again")
            made = len(a.accepted)
            for owner in (a, c):
                owner.mesh.let_missing_go()  # it is another one by now
            await a.until_linked(b, c)
            await c.until_linked(a, b)
            assert len(a.accepted) == made
            assert a.told == c.told == []

    in_loop(scenario)


def test_a_link_that_breaks_is_mended_and_complained_of_while_it_is_to_go_and_needed() -> None:
    async def scenario() -> None:
        async with owners("Aab") as (oldest, a, b):
            whole, without = three(1, oldest, a, b), three(2, oldest, a, b, linked=False)
            for owner in (oldest, a, b):
                owner.install(whole)
            await a.until_linked(oldest, b)
            await b.until_linked(oldest, a)
            break_off(a.accepted[0])
            for one, other in ((a, b), (b, a)):
                assert await one.says() == (other.me.uid, "frames were lost")
                one.install(whole, without)
            b.install(without)
            break_off(a.accepted[1])
            assert await a.says() == (b.me.uid, "broken")
            assert await a.says() == (b.me.uid, "frames were lost")
            assert await b.says() == (a.me.uid, "works again")

    in_loop(scenario)


def test_a_link_is_dialled_on_and_on_and_nothing_that_a_view_does_without_is_lost() -> None:
    async def scenario() -> None:
        async with owners("Aab") as (oldest, a, b):
            for owner in (oldest, a, b):
                owner.install(three(1, oldest, a, b))
            await a.until_linked(oldest, b)
            await b.until_linked(oldest, a)
            a.mesh.timeout_s = b.mesh.timeout_s = SOON_S
            b.unreachable = True
            break_off(a.accepted[0])
            for one, other in ((a, b), (b, a)):
                assert await one.says() == (other.me.uid, "broken")
                one.install(three(2, oldest, a, b, linked=False))
            b.unreachable = False
            for one, other in ((a, b), (b, a)):
                assert await one.says() == (other.me.uid, "works again")
                one.install(three(3, oldest, a, b))
            assert a.told == b.told == []

    in_loop(scenario)


def test_a_link_is_dialled_at_once_when_the_peers_have_one_again() -> None:
    async def scenario() -> None:
        async with owners("Aab") as (oldest, a, b):
            for owner in (oldest, a, b):
                owner.install(three(1, oldest, a, b))
            await b.until_linked(oldest, a)
            b.mesh.timeout_s = 20 * BOUND_S  # half of it is waited for
            b.unreachable = True
            break_off(a.accepted[0])
            assert await b.says() == (a.me.uid, "broken")
            b.unreachable = False
            b.mesh.reached(oldest.me.uid)  # has one
            b.mesh.reached(a.me.uid)
            assert await b.says() == (a.me.uid, "frames were lost")

    in_loop(scenario)


def test_members_that_are_frozen_meet_again_under_the_view_that_they_have() -> None:
    async def scenario() -> None:
        async with owners("ab") as (a, b):
            for owner in (a, b):
                owner.install(view_of(1, [a, b]))
            await a.until_linked(b)
            await b.until_linked(a)
            a.mesh.timeout_s = b.mesh.timeout_s = SOON_S
            b.unreachable = True
            break_off(a.accepted[0])
            for one, other in ((a, b), (b, a)):
                assert await one.says() == (other.me.uid, "broken")
            b.unreachable = False
            for one, other in ((a, b), (b, a)):
                assert await one.says() == (other.me.uid, "frames were lost")

    in_loop(scenario)


def test_a_link_lost_just_before_its_leaver_s_view_is_told_while_a_round_needs_it() -> None:
    async def scenario() -> None:
        async with owners("Aab") as (oldest, a, b):
            whole, left = three(1, oldest, a, b), view_of(2, [oldest, a])
            for owner in (oldest, a, b):
                owner.install(whole)
            await a.until_linked(oldest, b)
            await b.until_linked(oldest, a)
            b.unreachable = True
            break_off(a.accepted[0])
            await a.until_linked(oldest)
            a.told.clear()  # whatever it could do about it under the view that has them both
            a.install(whole, left)
            assert await a.says() == (b.me.uid, "broken")
            a.install(left)
            assert a.told == []

    in_loop(scenario)


def test_nothing_is_kept_of_who_has_died() -> None:
    async def scenario() -> None:
        async with owners("Aab") as (oldest, a, b):
            left = view_of(2, [oldest, a])
            for owner in (oldest, a, b):
                owner.install(three(1, oldest, a, b))
            await a.until_linked(oldest, b)
            await b.until_linked(oldest, a)
            assert a.mesh._links.known == {oldest.me.uid, b.me.uid}
            b.unreachable = True
            b.out_of_play = True
            await b.mesh.aclose()
            await a.until_linked(oldest)
            a.install(left)
            a.mesh.let_go(left)
            assert a.mesh._links.known == {oldest.me.uid}

    in_loop(scenario)
