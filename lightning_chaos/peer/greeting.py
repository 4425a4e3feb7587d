"""The first words on a control connection: both sides say who they are.

Each sends its Hello at once and then checks the other's; whoever finds a difference says why
and closes, so that both sides can show the reason.
"""

from __future__ import annotations

import asyncio

from lightning_chaos.errors import JoinError, WireError
from lightning_chaos.protocol.messages import Hello, Message, Refuse, decode, encode
from lightning_chaos.protocol.values import PROTOCOL_VERSION, Member
from lightning_chaos.transport.channel import Channel

HELLO_TIMEOUT_S = 5.0


async def greet(
    channel: Channel, me: Member, run: str, timeout_s: float = HELLO_TIMEOUT_S
) -> Member:
    """Exchange Hellos; the channel is closed if that fails.

    Args:
        channel: a control connection on which nothing has been said.
        me: this incarnation.
        run: id of the run it belongs to.
        timeout_s: longest wait for the other's Hello, seconds.

    Returns:
        Who is at the other end.

    Raises:
        JoinError: the other side is of another run or version, or refuses this one.
        WireError: it does not speak the protocol.
        OSError: it closed the connection or said nothing in time.
    """
    try:
        channel.send(encode(Hello(PROTOCOL_VERSION, run, me)))
        try:
            async with asyncio.timeout(timeout_s):
                data = await channel.receive()
        except TimeoutError:
            raise OSError(f"it did not say who it is within {timeout_s:.3g} s") from None
        if data is None:
            raise OSError("it closed the connection without a word")
        problem, sender = _check(decode(data), run)
        if sender is None:
            channel.send(encode(Refuse(problem)))
            raise JoinError(problem)
        return sender
    except (JoinError, WireError):
        channel.close()
        raise
    except BaseException:
        channel.abort()
        raise


def _check(message: Message, run: str) -> tuple[str, Member | None]:
    match message:
        case Hello(version=version) if version != PROTOCOL_VERSION:
            return (
                f"protocol version {version} met version {PROTOCOL_VERSION}: "
                "all nodes of a run need the same version of lightning-chaos",
                None,
            )
        case Hello(run=other) if other != run:
            return f"run {other!r} met run {run!r}: these are two different runs", None
        case Hello(sender=sender):
            if not sender.node or not 0 <= sender.port <= 65535:
                return f"no node has the name {sender.node!r} and port {sender.port}", None
            return "", sender
        case Refuse(reason=reason):
            return reason, None
        case _:
            return f"it began with {type(message).__name__}, expected was Hello", None
