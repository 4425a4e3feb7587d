"""``python -m lightning_chaos.testing.simulator``: play the cases of seeds.

``17`` plays one and prints its story.  ``0:2000`` plays many and prints the least that breaks a
promise, if one does; ``0:2000:2`` plays every second one, for two processes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import time

from lightning_chaos.testing.simulator.draw import DRAWS
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
    parser.add_argument("--draw", choices=DRAWS, default="life", help="what kind of cases")
    options = parser.parse_args()
    seeds: range = options.seeds
    draw = DRAWS[options.draw]
    if len(seeds) == 1:
        outcome = simulate(draw(seeds[0]))
        print(outcome)
        return int(bool(outcome.problem))
    begun, events = time.monotonic(), []
    for seed in seeds:
        outcome = simulate(draw(seed), story=False)
        events.append(outcome.events)
        if outcome.problem:
            print(f"{options.draw} {seed}:\n{simulate(shrink(draw(seed)))}")
            return 1
    seconds, events = time.monotonic() - begun, sorted(events)
    print(
        f"{len(seeds)} runs of {events[len(events) // 2]} events (median; nine in ten up to "
        f"{events[len(events) * 9 // 10]}), {len(seeds) / seconds:.1f} runs per second"
    )
    return 0


def _seeds(text: str) -> range:
    """``17`` or ``0:2000`` or ``0:2000:2``."""
    first, *rest = (int(part) for part in text.split(":"))
    return range(first, *rest) if rest else range(first, first + 1)


if __name__ == "__main__":
    sys.exit(main())
