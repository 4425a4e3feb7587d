"""What thousands of view changes leave behind in a peer process: memory and descriptors.

    python benchmarks/soak.py [--changes 2000] [--write benchmarks/results/soak.md]

Three peers whose workers only answer stay; one more joins and leaves again and again, three view
changes each time.  After a quarter of them (warm-up) the resident memory and the open descriptors
of the oldest peer are read every 30 changes, and a line is fitted.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from common import machine, parser, publish
from idle import IdlePeers

MOST_BYTES_PER_CHANGE = 1024
STEP = 10
"""Joins and leaves between two readings."""
LOOKS, LOOK_S = 10, 0.05
REST_S = 20.0
"""A busy machine takes longer to close what has ended; what is open after that is left behind."""


async def soak(changes: int, directory: Path) -> list[tuple[int, int, int]]:
    """Readings after the warm-up: epoch, resident bytes, descriptors."""
    readings = []
    async with IdlePeers(directory) as peers:
        oldest = peers.oldest
        process = psutil.Process(oldest.peer_pid)
        first = oldest.epoch
        while (done := oldest.epoch - first) < changes:
            for _ in range(STEP):
                await peers.join()
                await peers.leave()
            if done >= changes / 4:
                files = await at_rest(process, readings[0][2] if readings else None)
                readings.append((oldest.epoch, process.memory_info().rss, files))
    return readings


async def at_rest(process: psutil.Process, before: int | None) -> int:
    """Open descriptors, once the connections of who has just left are closed.

    Args:
        process: of the peer.
        before: how many it has had at rest; if there are more now, they are given time to close.
    """
    counts = []
    until = time.monotonic() + REST_S
    while len(counts) < LOOKS or (
        before is not None and min(counts) > before and time.monotonic() < until
    ):
        await asyncio.sleep(LOOK_S)
        counts.append(process.num_fds())
    return min(counts)


def main() -> None:
    """Measure and print; exit code 1 if memory grows too fast, or descriptors at all."""
    arguments_of = parser(__doc__.splitlines()[0])
    arguments_of.add_argument(
        "--changes", type=int, default=2000, help="of the view (default: %(default)s)"
    )
    arguments = arguments_of.parse_args()
    changes = 120 if arguments.smoke else arguments.changes
    with tempfile.TemporaryDirectory() as directory:
        readings = asyncio.run(soak(changes, Path(directory)))
    epochs, memory, descriptors = zip(*readings, strict=True)
    slope = statistics.linear_regression(epochs, memory).slope
    lines = [
        machine(),
        f"{epochs[-1]} view changes in one peer process, readings from epoch {epochs[0]} on.",
        "",
        "| what | first | last | slope per change |",
        "|---|---|---|---|",
        f"| resident memory | {memory[0] >> 10} KiB | {memory[-1] >> 10} KiB | {slope:.0f} B |",
        f"| descriptors | {descriptors[0]} | {descriptors[-1]} | |",
    ]
    publish("\n".join(lines) + "\n", arguments.write)
    grows = not arguments.smoke and slope > MOST_BYTES_PER_CHANGE  # a short run is all warm-up
    sys.exit(grows or max(descriptors) > descriptors[0])


if __name__ == "__main__":
    main()
