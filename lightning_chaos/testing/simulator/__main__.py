"""``python -m lightning_chaos.testing.simulator``: play the cases of seeds.

``17`` plays one and prints its story.  ``0:2000`` plays many and prints the least that breaks a
promise, if one does; ``0:2000:2`` plays every second one, for two processes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import time

from lightning_chaos.testing.simulator.draw import draw
from lightning_chaos.testing.simulator.run import simulate
from lightning_chaos.testing.simulator.shrink import shrink


def main() -> int:
    """0 if all promises were kept, 1 if one was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_chaos.testing.simulator",
        description=__doc__.partition("\n")[2] if __doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("seeds", type=_seeds, metavar="SEED | FIRST:LAST[:STEP]")
    seeds: range = parser.parse_args().seeds
    if len(seeds) == 1:
        outcome = simulate(draw(seeds[0]))
        print(outcome)
        return int(bool(outcome.problem))
    begun = time.monotonic()
    for seed in seeds:
        if simulate(draw(seed), story=False).problem:
            print(f"seed {seed}:\n{simulate(shrink(draw(seed)))}")
            return 1
    print(f"{len(seeds)} runs, {len(seeds) / (time.monotonic() - begun):.0f} per second")
    return 0


def _seeds(text: str) -> range:
    """``17`` or ``0:2000`` or ``0:2000:2``."""
    first, *rest = (int(part) for part in text.split(":"))
    return range(first, *rest) if rest else range(first, first + 1)


if __name__ == "__main__":
    sys.exit(main())
