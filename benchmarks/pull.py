"""A pull over unlike links, with rates that are known, unknown and wrong, beside raw TCP.

    python benchmarks/pull.py [--repeat 5] [--mb 64] [--rtt-ms 20 100] [--write FILE]

Three donors with links of 200, 100 and 50 Mbit/s to the newcomer and a round trip of 20 or 100 ms,
between namespaces (through relays where there is no root).  Compared with the bound, the state over
the sum of the rates, are

* the pull with the right rates remembered, with those two and four times wrong (the two fast links
  believed to be slower and the slow one faster, and the other way round), with nothing remembered;
* one raw TCP connection from each donor, all at once, each with its part of the same bytes, cut by
  the right rates: what a plan could have if nothing had to be asked for and checked.

Time goes from the first call to the last byte; in each repetition everything is done once.  A last
table is that of :mod:`newcomers`: two behind one slow member.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import time
from collections.abc import Mapping

import newcomers
import torch
from common import machine, parser, publish
from doors import dialler_of, open_to, payload_of

from lightning_chaos.errors import ConfigError
from lightning_chaos.protocol.values import OpId
from lightning_chaos.replication.donor import Donor
from lightning_chaos.replication.image import StateImage
from lightning_chaos.replication.puller import pull
from lightning_chaos.replication.values import Pulled, Source
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.lab.wan.calibration import calibrate, into
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.dial import dial
from lightning_chaos.transport.door import Kind
from lightning_chaos.transport.pacer import Pacer

RATES_MBIT = {"a": 200.0, "b": 100.0, "c": 50.0}
PATIENCE_S = 30.0
CHUNK_BYTES = 256 << 10
Network = Relays | Namespaces


def beliefs(rates: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """What is remembered, by what it is called."""
    slow = min(rates, key=lambda name: rates[name])

    def wrong(by: float) -> dict[str, float]:
        return {n: rate * (by if n == slow else 1 / by) for n, rate in rates.items()}

    return {
        "right": dict(rates),
        "nothing remembered": {},
        "2 times wrong, slow links overrated": wrong(2),
        "2 times wrong, slow links underrated": wrong(0.5),
        "4 times wrong, slow links overrated": wrong(4),
        "4 times wrong, slow links underrated": wrong(0.25),
    }


async def pulled(network: Network, image: StateImage, believed: Mapping[str, float]) -> Pulled:
    """One pull from all donors."""
    async with contextlib.AsyncExitStack() as stack:
        sources = []
        for name in RATES_MBIT:
            donor = Donor("run", lambda _: Pacer(None, time.monotonic), None)
            stack.push_async_callback(donor.aclose)
            donor.offer(image, ["new/1"])
            address = await stack.enter_async_context(open_to(network, name, donor.serve))
            sources.append(Source(f"{name}/1", name, address, believed.get(name)))
        return await pull(
            sources,
            run="run",
            uid="new/1",
            local_from="a/1",
            dialler=dialler_of(network, "new"),
            tls=None,
            held=None,
            progress=lambda _: None,
            stall_s=PATIENCE_S,
            max_bytes=1 << 40,
        )


async def raw(network: Network, total: int) -> float:
    """One connection from each donor with its part; returns seconds."""
    loop = asyncio.get_running_loop()
    parts = {n: round(total * r / sum(RATES_MBIT.values())) for n, r in RATES_MBIT.items()}
    chunk = memoryview(bytes(CHUNK_BYTES))

    async def fetch(address: Address, size: int) -> None:
        with await dial(dialler_of(network, "new"), address, Kind.SHARDS, PATIENCE_S) as sock:
            buffer = bytearray(CHUNK_BYTES)
            while size > 0:
                size -= await loop.sock_recv_into(sock, buffer)

    async with contextlib.AsyncExitStack() as stack:
        work = []
        for name, part in parts.items():

            async def serve(sock: socket.socket, left: int = part) -> None:
                while left > 0:
                    await loop.sock_sendall(sock, chunk[: min(left, CHUNK_BYTES)])
                    left -= CHUNK_BYTES
                await loop.sock_recv(sock, 1)

            address = await stack.enter_async_context(open_to(network, name, serve))
            work.append((address, part))
        begun = loop.time()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(fetch(address, part) for address, part in work))
        return loop.time() - begun


def measure(network: Network, rtt_ms: float, total: int, repeat: int) -> list[str]:
    """The table of one round trip."""
    shape(network, rtt_ms)
    noise = torch.randint(0, 256, (total,), dtype=torch.uint8)
    image = StateImage.of({"noise": noise}, None, round=1, operation=OpId(0, 0))
    rates = {name: payload_of(network, rate) for name, rate in RATES_MBIT.items()}
    bound = image.manifest.total_bytes / sum(rates.values())
    ratios: dict[str, list[float]] = {"raw TCP, cut by the right rates": []}
    predicted: dict[str, list[float]] = {}
    off: dict[str, list[float]] = {}
    for _ in range(repeat):
        ratios["raw TCP, cut by the right rates"].append(
            asyncio.run(raw(network, image.manifest.total_bytes)) / bound
        )
        for name, believed in beliefs(rates).items():
            result = asyncio.run(pulled(network, image, believed))
            ratios.setdefault(f"pull, {name}", []).append(result.seconds / bound)
            if result.predicted_s is not None:
                ends = predicted.setdefault(f"pull, {name}", [])
                ends.append(result.predicted_s / result.seconds)
            farthest = max(abs(d.bytes - d.planned_bytes) for d in result.donors)
            off.setdefault(f"pull, {name}", []).append(farthest / total)
    lines = [
        "",
        f"Round trip {rtt_ms:g} ms, {total / 1e6:.0f} MB in {image.manifest.shards} shards; "
        f"bound {bound:.2f} s; n = {repeat}, median (least to most).",
        "",
        "| what | seconds / bound | end predicted / measured | most off plan, of the state |",
        "|---|---|---|---|",
    ]
    for name, found in ratios.items():
        end, share = predicted.get(name), off.get(name)
        lines.append(
            f"| {name} | {_told(found)} | {_told(end) if end else ''} | "
            f"{f'{100 * statistics.median(share):.0f} %' if share else ''} |"
        )
    return lines


def _told(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def shape(network: Network, rtt_ms: float) -> None:
    """Tell the network what the links are."""
    for name, rate in RATES_MBIT.items():
        network.shape(Shape(rate_mbit=rate, delay_ms=rtt_ms / 2), name, "new")


def main() -> None:
    """Measure and print; see the module."""
    arguments_of = parser(__doc__.splitlines()[0])
    arguments_of.add_argument(
        "--repeat", type=int, default=5, help="times each (default: %(default)s)"
    )
    arguments_of.add_argument(
        "--mb", type=int, default=64, help="size of the state, MB (default: %(default)s)"
    )
    arguments_of.add_argument(
        "--rtt-ms",
        type=float,
        nargs="+",
        default=[20, 100],
        help="each once (default: %(default)s)",
    )
    arguments = arguments_of.parse_args()
    repeat, total = (1, 4_000_000) if arguments.smoke else (arguments.repeat, arguments.mb * 10**6)
    try:
        with Namespaces(len(RATES_MBIT) + len(newcomers.NEWCOMERS)) as network:
            shape(network, arguments.rtt_ms[0])
            if not arguments.smoke:
                calibrate(network, into("new", [*RATES_MBIT, "new"])).require()
            lines = ["Between namespaces."]
            for rtt_ms in arguments.rtt_ms:
                lines += measure(network, rtt_ms, total, repeat)
            lines += newcomers.measure(network, total // 4, repeat)
    except ConfigError as error:
        with Relays() as relays:
            lines = [f"Through relays: {error}"]
            for rtt_ms in arguments.rtt_ms:
                lines += measure(relays, rtt_ms, total, repeat)
            lines += newcomers.measure(relays, total // 4, repeat)
    publish("\n".join([machine(), *lines]) + "\n", arguments.write)


if __name__ == "__main__":
    main()
