"""The least that still breaks a promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from lightning_chaos.testing.simulator.case import Case, Fault
from lightning_chaos.testing.simulator.run import simulate

RUNS = 400


def shrink(case: Case, runs: int = RUNS) -> Case:
    """The case with as few faults, nodes and particulars as still have a problem of its kind.

    Args:
        case: one that has a problem; any other is returned as it is.
        runs: most simulations to spend.
    """
    kind = simulate(case, story=False).kind
    if not kind:
        return case
    left = runs
    again = True
    while again:
        again = False
        for simpler in _simpler(case):
            left -= 1
            if left < 0:
                return case
            if simulate(simpler, story=False).kind == kind:
                case, again = simpler, True
                break
    return case


def _simpler(case: Case) -> Iterator[Case]:
    """Cases that are simpler by one thing, the largest steps first."""
    change = dataclasses.replace
    half = len(case.faults) // 2
    if half > 1:
        yield change(case, faults=case.faults[:half])
        yield change(case, faults=case.faults[half:])
    for name in case.names if len(case.names) > 1 else "":
        without = tuple(f for f in case.faults if name not in (f.a, f.b) or f.after)
        yield change(case, names=case.names.replace(name, ""), faults=without)
    for i in range(len(case.faults)):
        yield change(case, faults=case.faults[:i] + case.faults[i + 1 :])
    if case.ends:
        yield change(case, ends=False)
    for i, fault in enumerate(case.faults):
        for simple in _simpler_fault(fault):
            yield change(case, faults=(*case.faults[:i], simple, *case.faults[i + 1 :]))


def _simpler_fault(fault: Fault) -> Iterator[Fault]:
    if fault.kind in ("isolate", "black_hole"):
        kind = "cut" if fault.kind == "isolate" else "stall"
        yield dataclasses.replace(fault, kind=kind)
    if fault.after and fault.count > 1:
        yield dataclasses.replace(fault, count=1)
    if fault.seconds != 1.0:
        yield dataclasses.replace(fault, seconds=1.0)
