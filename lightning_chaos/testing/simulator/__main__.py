"""``python -m lightning_chaos.testing.simulator``: play the cases of seeds.

``17`` plays one and prints its story.  ``0:2000`` plays many and prints the least that breaks a
promise, if one does; ``0:2000:2`` plays every second one.  Of short ones so many are played of at
most 1,000 events: longer ones must keep their promises, but others take their place.  ``17:`` goes
on from there, kind after kind, on all cores, until a promise is broken.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import time

from lightning_chaos.testing.ending import end_with
from lightning_chaos.testing.simulator.draw import DRAWS, MOST_EVENTS
from lightning_chaos.testing.simulator.run import simulate
from lightning_chaos.testing.simulator.shares import give_way, play
from lightning_chaos.testing.simulator.shrink import shrink

SHRINKS = 20_000
"""A run of more events takes too long to be played again and again."""
LAP = {"short": 8000, "life": 2000, "large": 10, "huge": 1}
"""So many of each kind, by turns, when it goes on and on."""


def main() -> int:
    """0 if all promises were kept, 1 if one was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_chaos.testing.simulator",
        description=__doc__.partition("\n")[2] if __doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "seeds", type=_seeds, metavar="SEEDS", help="SEED, FIRST:LAST, FIRST:LAST:STEP or FIRST:"
    )
    parser.add_argument(
        "--draw", choices=DRAWS, default="life", help="kind of cases (default: life)"
    )
    parser.add_argument(
        "--share-of", type=int, metavar="PID", help="end with that process, the parent"
    )
    options = parser.parse_args()
    if options.share_of is not None:
        end_with(options.share_of)
    match options.seeds:
        case [int(seed)]:
            outcome = simulate(DRAWS[options.draw](seed))
            print(outcome)
            return int(bool(outcome.problem))
        case [int(first), None]:
            return _go_on(first)
        case seeds:
            return _play_all(options.draw, range(*seeds))


def _play_all(kind: str, seeds: range) -> int:
    give_way()
    most = MOST_EVENTS.get(kind, sys.maxsize)
    events: list[int] = []
    longer = 0
    further = itertools.count(seeds.start, seeds.step)
    while len(events) < len(seeds):
        seed = next(further)
        outcome = simulate(DRAWS[kind](seed), story=False)
        if outcome.problem:
            least = simulate(shrink(outcome.case)) if outcome.events < SHRINKS else outcome
            print(f"--draw {kind} {seed}:\n{least}")
            return 1
        if outcome.events > most:
            longer += 1
        else:
            events.append(outcome.events)
    events.sort()
    print(
        f"{len(seeds)} {kind} runs in {time.process_time():.1f} s of a processor; events: "
        f"{events[len(events) // 2]} in the middle one, {events[len(events) * 9 // 10]} in nine of "
        f"ten, {events[-1]} at most" + (f"; besides {longer} longer ones" if longer else "")
    )
    return 0


def _go_on(first: int) -> int:
    for lap in itertools.count():
        for kind, runs in LAP.items():
            begin = first + lap * runs
            print(f"--draw {kind} {begin}:{begin + runs}", flush=True)
            said, kept = play(kind, begin, runs)
            print(said, end="", flush=True)
            if not kept:
                return 1
    return 0


def _seeds(text: str) -> list[int | None]:
    """``17`` or ``0:2000`` or ``0:2000:2`` or ``17:``; none is negative."""
    found = re.fullmatch(r"(\d+)(:|:\d+(:[1-9]\d*)?)?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write 17, 0:2000, 0:2000:2 or 17:")
    given = [int(part) for part in text.split(":") if part]
    if len(given) > 1 and not range(*given):
        raise argparse.ArgumentTypeError(f"{text!r}: there is no seed from the first to the last")
    return [*given, None] if text.endswith(":") else [*given]


if __name__ == "__main__":
    sys.exit(main())
