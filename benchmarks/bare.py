"""The messages of a join, a leave and a lost link, exchanged by processes that only pass them on.

What a negotiation costs at least on this machine: the same number of processes, links, messages
and bytes as among peers, without a protocol behind them.  Where a link is lost, each peer asks its
worker to freeze before it agrees.  ``BareExchange`` starts the processes; run as a script this file
is one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from types import TracebackType

from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.messages import (
    Ack,
    Commit,
    JoinRequest,
    LeaveRequest,
    Prepare,
    Unreachable,
    decode,
    encode,
)
from lightning_chaos.protocol.values import Ballot, Member, Proposal, View
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.channel import Channel
from lightning_chaos.transport.door import open_door
from lightning_chaos.transport.relayed import dialler_for

MEMBERS = 4
NEWCOMER = MEMBERS
ENDS = (1, 2)
"""Between them a link is lost."""
PATIENCE_S = 30.0
FREEZE = b"freeze"
"""To a worker, and its answer."""


def member(place: int) -> Member:
    return Member(f"n{place}", 1 << 60, "127.0.0.1", 40000 + place, "machine" * 8, 1000 + place)


def proposal(*, planned: bool = True) -> Proposal:
    members = tuple(member(place) for place in range(MEMBERS))
    view = View("bare", 0, 8, members, (member(NEWCOMER),), 12, mesh_plan([m.uid for m in members]))
    return Proposal(Ballot(7, members[0].uid), 7, view, planned, "n4 starts to learn")


class Process:
    """One of them: the first is the lead, the last the newcomer."""

    def __init__(self, place: int, worker: Channel) -> None:
        self._place = place
        self._worker = worker
        self._links: dict[int, Channel] = {}
        self._acks = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def link(self, place: int, channel: Channel) -> None:
        """Listen to another one."""
        self._links[place] = channel
        self._tasks.append(asyncio.create_task(self._listen(place, channel)))

    async def _listen(self, place: int, channel: Channel) -> None:
        while (data := await channel.receive()) is not None:
            self._hear(place, data)

    def ask(self, what: bytes) -> None:
        """The worker wants in or out, or a link of this one is lost, or works again."""
        mine = member(self._place)
        requests = {
            b"join": JoinRequest(mine, ()),
            b"leave": LeaveRequest(mine.uid),
            b"lost": Unreachable(7, (member(ENDS[0]).uid,)),
            b"back": Unreachable(7, ()),
        }
        for place in range(1 if what in (b"lost", b"back") else MEMBERS):
            if place != self._place:
                self._links[place].send(encode(requests[what]))

    def _hear(self, sender: int, data: bytes) -> None:
        match message := decode(data):
            case Unreachable() if self._place == 0 and sender == ENDS[0]:
                pass  # the other end says so too
            case JoinRequest() | LeaveRequest() | Unreachable() if self._place == 0:
                freezes = isinstance(message, Unreachable) and bool(message.uids)
                self._acks = 0 if freezes else 1  # its own
                for place in range(1, MEMBERS):
                    self._links[place].send(encode(Prepare(proposal(planned=not freezes))))
                if freezes:
                    self._worker.send(FREEZE)
            case Prepare(proposal=asked):
                if asked.planned:
                    self._agree()
                else:
                    self._worker.send(FREEZE)
            case Ack():
                self._agreed()
            case Commit():
                self._worker.send(data)
            case _:
                pass

    def frozen(self) -> None:
        """The worker has answered."""
        if self._place == 0:
            self._agreed()
        else:
            self._agree()

    def _agree(self) -> None:
        self._links[0].send(encode(Ack(proposal().ballot, ())))

    def _agreed(self) -> None:
        self._acks += 1
        if self._acks == MEMBERS:
            for place in range(1, MEMBERS + 1):
                self._links[place].send(encode(Commit(proposal())))
            self._worker.send(encode(Commit(proposal())))


async def run(
    place: int, relay: str, door: socket.socket, control: socket.socket, ports: list[int]
) -> None:
    dialler = dialler_for(relay, f"bare{place}")
    worker = await Channel.over(control)
    process = Process(place, worker)
    loop = asyncio.get_running_loop()
    door.setblocking(False)
    for other in range(place):
        channel = await Channel.over(await dialler(Address("127.0.0.1", ports[other]), PATIENCE_S))
        channel.send(bytes([place]))
        await process.link(other, channel)
    for _ in range(len(ports) - place - 1):
        channel = await Channel.over((await loop.sock_accept(door))[0])
        said = await channel.receive()
        assert said is not None
        await process.link(said[0], channel)
    worker.send(b"ready")
    while (what := await worker.receive()) is not None:
        if what == FREEZE:
            process.frozen()
        else:
            process.ask(what)


class BareExchange:
    """So many processes, connected with each other and with this one.

    Args:
        relays: what their connections go through, None for straight ones.
    """

    def __init__(self, relays: Relays | None = None) -> None:
        self._relays = relays
        self._stack = contextlib.AsyncExitStack()
        self._channels: list[Channel] = []

    async def __aenter__(self) -> BareExchange:
        doors = [self._stack.enter_context(open_door("127.0.0.1", 0)) for _ in range(MEMBERS + 1)]
        ports = [door.getsockname()[1] for door in doors]
        for place, door in enumerate(doors):
            ours, theirs = socket.socketpair()
            relay = ""
            if self._relays is not None:
                relay = str(self._relays.address)
                self._relays.place(f"bare{place}", Address("127.0.0.1", ports[place]))
            words = [place, relay, door.fileno(), theirs.fileno(), *ports]
            process = subprocess.Popen(
                [sys.executable, __file__, *map(str, words)],
                pass_fds=(door.fileno(), theirs.fileno()),
            )
            self._stack.callback(process.wait, PATIENCE_S)
            theirs.close()
            channel = await Channel.over(ours)
            self._stack.callback(channel.close)
            self._channels.append(channel)
        for channel in self._channels:
            assert await channel.receive() == b"ready"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for channel in self._channels:
            channel.close()
            await channel.wait_closed()
        await self._stack.aclose()

    async def seconds(self, what: str) -> float:
        """From what is asked for until all workers have the COMMIT.

        Args:
            what: ``join``, ``leave``, or of a link ``lost`` or ``back``.
        """
        askers = {"join": (NEWCOMER,), "leave": (1,)}.get(what, ENDS)
        begun = time.perf_counter()
        for asker in askers:
            self._channels[asker].send(what.encode())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(_told(channel) for channel in self._channels))
        return time.perf_counter() - begun


async def _told(worker: Channel) -> None:
    """The COMMIT is here; the worker freezes if it is asked to before."""
    while await worker.receive() == FREEZE:
        worker.send(FREEZE)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit("a part of events.py and links.py, which start it")
    relay = sys.argv.pop(2)
    place, door, control, *ports = map(int, sys.argv[1:])
    asyncio.run(run(place, relay, socket.socket(fileno=door), socket.socket(fileno=control), ports))
