"""A short visit to a run from outside: who is in it, and please end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from lightning_chaos.errors import ChaosError, JoinError
from lightning_chaos.peer.greeting import greet
from lightning_chaos.protocol.messages import (
    AnyMessage,
    Gauges,
    Message,
    Refuse,
    Status,
    StopRequest,
    ViewNews,
    decode,
    encode,
)
from lightning_chaos.protocol.values import Member, Uid, View
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.channel import Channel
from lightning_chaos.transport.dial import Dialler, dial, dial_tcp
from lightning_chaos.transport.door import Kind

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What one node told a visitor."""

    node: Member
    view: View
    status: Status
    gauges: Gauges | None = None
    """None where the node has measured nothing yet."""


class Visit:
    """A control connection of somebody who is no node and stays none."""

    def __init__(self, address: Address, channel: Channel, host: Member) -> None:
        self._address = address
        self._channel = channel
        self._host = host

    async def look(self) -> Sight:
        """Wait for the node's view and status.

        Raises:
            JoinError: the node refuses or hangs up.
            WireError: it sends what is no message.
        """
        view: View | None = None
        status: Status | None = None
        gauges: Gauges | None = None
        viewless = 0
        while view is None or status is None:
            match await self._next():
                case ViewNews(view=news):
                    view = news
                case Status() as status:
                    viewless += view is None
                    if viewless > 1 and status.waiting:
                        name = self._host.node
                        raise JoinError(f"{name} has not found the run yet: {status.waiting}")
                case Gauges() as gauges:
                    pass
                case _:
                    pass
        return Sight(self._host, view, status, gauges)

    async def say(self, message: Message) -> None:
        """Send, and stay until the node has read it and hangs up."""
        self._channel.send(encode(message))
        # Closing with something of the node's unread could take our own message back.
        self._channel.end()
        while await self._channel.receive() is not None:
            pass

    async def _next(self) -> AnyMessage:
        return await _receive(self._channel, self._address)


@contextlib.asynccontextmanager
async def visit(address: Address, run: str, dialler: Dialler = dial_tcp) -> AsyncIterator[Visit]:
    """Knock at a node's door; everything inside is bounded by :data:`TIMEOUT_S` seconds.

    Raises:
        JoinError: nobody answers, the node refuses, or it takes too long.
        WireError: it sends what is no message.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            sock = await dial(dialler, address, Kind.CONTROL, TIMEOUT_S)
            channel = await Channel.over(sock)
            try:
                host = await greet(channel, _myself(), run, TIMEOUT_S)
                yield Visit(address, channel, host)
            finally:
                channel.close()
                await channel.wait_closed()
    except TimeoutError:
        raise JoinError(f"{address} did not answer within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise JoinError(f"{address} cannot be reached: {error}") from None


async def look(addresses: Sequence[Address], run: str, dialler: Dialler = dial_tcp) -> Sight:
    """The run as the first node that answers sees it.

    Raises:
        JoinError: none answered; names each and its reason.
    """
    problems: list[str] = []
    for address in addresses:
        try:
            async with visit(address, run, dialler) as node:
                return await node.look()
        except ChaosError as error:
            problems.append(str(error))
    raise JoinError(f"no node of run {run} answered: {'; '.join(problems) or 'none is known'}")


async def look_around(
    addresses: Sequence[Address], run: str, dialler: Dialler = dial_tcp
) -> tuple[Sight, dict[Uid, Gauges]]:
    """The run as the first node that answers sees it, and what each node measures itself.

    Raises:
        JoinError: none answered; names each and its reason.
    """
    sight = await look(addresses, run, dialler)
    view, seen = sight.view, {sight.node.uid: sight}

    async def look_at(member: Member) -> None:
        with contextlib.suppress(ChaosError):  # it shows as one that tells nothing
            seen[member.uid] = await look([Address(member.host, member.port)], run, dialler)

    others = [m for m in (*view.members, *view.learners) if m.uid != sight.node.uid]
    await asyncio.gather(*map(look_at, others))
    return sight, {uid: s.gauges for uid, s in seen.items() if s.gauges is not None}


async def ask_to_stop(
    addresses: Sequence[Address], run: str, reason: str, dialler: Dialler = dial_tcp
) -> list[str]:
    """Ask every member to end the run; one that hears it is enough for all.

    Returns:
        Names of the nodes that were asked.

    Raises:
        JoinError: no node could be asked; names each and its reason.
    """
    sight = await look(addresses, run, dialler)
    members = sight.view.members

    async def ask(member: Member) -> None:
        async with visit(Address(member.host, member.port), run, dialler) as node:
            await node.say(StopRequest(reason))

    results = await asyncio.gather(*map(ask, members), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, ChaosError):
            raise result
    asked = [m.node for m, r in zip(members, results, strict=True) if r is None]
    if not asked:
        raise JoinError(f"no member of run {run} answered: {'; '.join(map(str, results))}")
    return asked


async def _receive(channel: Channel, address: Address) -> AnyMessage:
    data = await channel.receive()
    if data is None:
        raise JoinError(f"{address} closed the connection")
    message = decode(data)
    if isinstance(message, Refuse):
        raise JoinError(f"{address} refuses: {message.reason}")
    return message


def _myself() -> Member:
    return Member(node=f"cli-{os.getpid()}", incarnation=time.time_ns(), host="", port=0)
