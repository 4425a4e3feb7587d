"""Kinds of simulated cases that only tests draw."""

from __future__ import annotations

import random

from lightning_chaos.testing.simulator.case import Case, Fault

TROUBLES = (
    "kill",
    "kill_peer",
    "kill_worker",
    "restart",
    "pause_peer",
    "leave",
    "blip",
    "hang_worker",
)
DATA_LINKS = ("cut_data", "stall_data", "mute_data", "isolate_data", "deafen_data")
BESIDES = ("kill", "leave", "restart", "cut", "mute", "isolate", "blip", "blip_data", "pause_peer")
MOMENTS = ("", "", "ViewNews", "Prepare", "Ack", "Commit")


def partitions(seed: int, *, alone: bool = True) -> Case:
    """The network breaks in two, once or twice, and somebody is in trouble when it heals.

    Args:
        seed: of all chance.
        alone: a side without a quorum goes on alone.
    """
    rng = random.Random(f"partitions {seed}")
    names = "abcde"[: rng.choice((2, 3, 4, 4, 5))]
    faults = []
    for _ in range(rng.choice((1, 1, 2))):
        at, seconds = rng.uniform(1.5, 4.5), rng.uniform(1.6, 4.0)
        some = rng.sample(names, rng.randint(1, len(names) - 1))
        how = rng.choice(("cut", "stall") if alone else ("cut", "stall", "mute"))
        for a, b in ((a, b) for a in some for b in names if b not in some):
            faults.append(Fault(at, how, a, b, seconds + rng.uniform(0.0, 0.3)))
        for _ in range(rng.choice((0, 1, 2))):
            a, b = rng.sample(names, 2)
            when, what = at + seconds + rng.uniform(-0.5, 1.0), rng.choice(TROUBLES)
            lasts, after = rng.choice((0.3, 0.7, 1.5)), rng.choice(MOMENTS)
            faults.append(Fault(when, what, a, b, lasts, after))
    faults.sort(key=lambda fault: fault.at)
    return Case(seed, names, tuple(faults), rng.random() < 0.3, rng.random() < 0.3, alone=alone)


def data_links(seed: int) -> Case:
    """Up to five faults of data links, and perhaps others.

    Args:
        seed: of all chance.
    """
    rng = random.Random(f"data links {seed}")
    names = "abcde"[: rng.choice((2, 3, 4, 5, 5))]
    faults = [
        Fault(at, kind, *rng.sample(names, 2), seconds)
        for kind, at, seconds in (
            *(
                (rng.choice(DATA_LINKS), rng.uniform(0.2, 3.0), rng.choice((0.3, 1.5, 4.0, 8.0)))
                for _ in range(rng.randint(1, 5))
            ),
            *(
                (rng.choice(BESIDES), rng.uniform(0.2, 6.0), 1.0)
                for _ in range(rng.choice((0, 0, 1, 2)))
            ),
        )
    ]
    faults.sort(key=lambda fault: fault.at)
    founders = len(names) if rng.random() < 0.7 else 0
    return Case(seed, names, tuple(faults), founders=founders, quiet_at=10.0)
