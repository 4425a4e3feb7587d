"""Two newcomers behind one slow member: together, and each for itself (part of pull.py).

The member's card carries 100 Mbit/s for both, their links carry more.  For itself each gets half of
that, so both have the state after twice the time that it takes to leave the member once.  Together
they pass on to each other what they get.  Time goes until both have it; in each repetition
everything is done once.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time

import torch
from doors import dialler_of, open_to

from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT
from lightning_chaos.protocol.values import OpId
from lightning_chaos.replication.donor import Donor
from lightning_chaos.replication.image import StateImage
from lightning_chaos.replication.puller import pull
from lightning_chaos.replication.shelf import Shelf
from lightning_chaos.replication.values import Company, Pulled, Source
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.transport.pacer import Pacer

NEWCOMERS = ("new", "new2")
MEMBER_MBIT, LINK_MBIT, RTT_MS = 100.0, 300.0, 20.0
PATIENCE_S = 30.0


async def pulled_by_all(
    network: Relays | Namespaces, image: StateImage, together: bool
) -> tuple[float, int]:
    """All newcomers pull at once; returns seconds, and bytes that the member gave."""
    card = Pacer(MEMBER_MBIT * BYTES_PER_S_PER_MBIT, time.monotonic)
    uids = [f"{name}/1" for name in NEWCOMERS]
    shelves = [Shelf([other for other in uids if other != uid]) for uid in uids]
    async with contextlib.AsyncExitStack() as stack:
        doors = []
        for name in ("a", *NEWCOMERS):
            pacer = card if name == "a" else Pacer(None, time.monotonic)
            donor = Donor("run", lambda _, pacer=pacer: pacer, None)  # type: ignore[misc]
            donor.admit(uids)
            if name == "a":
                donor.offer(image, uids)
            else:
                donor.pass_on(shelves[NEWCOMERS.index(name)])
            stack.push_async_callback(donor.aclose)
            address = await stack.enter_async_context(open_to(network, name, donor.serve))
            doors.append(Source(f"{name}/1", name, address))
        member, *newcomers = doors

        async def one_pulls(rank: int, me: Source) -> Pulled:
            fellows = tuple(newcomer for newcomer in newcomers if newcomer is not me)
            return await pull(
                [member],
                run="run",
                uid=me.uid,
                local_from=member.uid,
                dialler=dialler_of(network, me.name),
                tls=None,
                held=None,
                progress=lambda _: None,
                stall_s=PATIENCE_S,
                max_bytes=1 << 40,
                company=Company(rank, fellows, shelves[rank]) if together else None,
            )

        begun = time.monotonic()
        found = await asyncio.gather(*(one_pulls(*each) for each in enumerate(newcomers)))
        return time.monotonic() - begun, sum(pulled.donors[0].bytes for pulled in found)


def measure(network: Relays | Namespaces, total: int, repeat: int) -> list[str]:
    """The table."""
    link = Shape(rate_mbit=LINK_MBIT, delay_ms=RTT_MS / 2)
    first, second = NEWCOMERS
    for one, other in (("a", first), ("a", second), (first, second)):
        network.shape(link, one, other)
    noise = torch.randint(0, 256, (total,), dtype=torch.uint8)
    image = StateImage.of({"noise": noise}, None, round=1, operation=OpId(0, 0))
    bound_s = image.manifest.total_bytes / (MEMBER_MBIT * BYTES_PER_S_PER_MBIT)
    lines = [
        "",
        f"Two newcomers behind one member with {MEMBER_MBIT:g} Mbit/s for both, round trip "
        f"{RTT_MS:g} ms, {total / 1e6:.0f} MB; bound {bound_s:.2f} s; n = {repeat}, median (least "
        "to most).",
        "",
        "| what | seconds / bound | left the member, of the state |",
        "|---|---|---|",
    ]
    for name, together in (("each for itself", False), ("passing on", True)):
        found = [asyncio.run(pulled_by_all(network, image, together)) for _ in range(repeat)]
        times = [seconds / bound_s for seconds, _ in found]
        left = statistics.median(size / image.manifest.total_bytes for _, size in found)
        lines.append(
            f"| {name} | {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) | "
            f"{left:.2f} |"
        )
    return lines
