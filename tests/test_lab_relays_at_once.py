"""What is said to a relay at once is true in one moment: nothing in between can be noticed."""

from __future__ import annotations

from lab_sockets import connected, nothing_arrives, play, receive, send

from lightning_chaos.testing.lab.conditions import Cut
from lightning_chaos.testing.lab.relays import Relays


def test_what_is_said_at_once_takes_effect_in_the_end(relays: Relays) -> None:
    async def scene() -> None:
        async with connected(relays, "a", "b") as (near, far):
            with relays.at_once():
                relays.cut("a", "b")
                await send(near, b"x")
                assert await receive(far) == b"x"
            await send(near, b"y")
            await nothing_arrives(far, 0.2)

    play(scene())


def test_what_is_taken_back_at_once_was_never_so(relays: Relays) -> None:
    async def scene() -> None:
        async with connected(relays, "a", "b") as (near, far):
            with relays.at_once():
                relays.cut("a", "b", Cut.RESET)
                relays.heal("a", "b")
            await send(near, b"x")
            assert await receive(far) == b"x"

    play(scene())
