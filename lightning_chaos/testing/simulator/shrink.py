"""The least that still breaks a promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from lightning_chaos.testing.simulator.case import Case, Fault
from lightning_chaos.testing.simulator.run import simulate

RUNS = 400
_LESS = {"isolate": "cut", "black_hole": "stall", "stall": "mute", "flap": "cut"}
"""Kinds of faults, and what is less than each."""


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
    yield from _fewer(case)
    for i in range(len(case.faults)):
        yield change(case, faults=case.faults[:i] + case.faults[i + 1 :])
    plain = Case(case.seed)
    for name in ("ends", "returns", "skew", "unlinked"):
        if getattr(case, name) != getattr(plain, name):
            yield change(case, **{name: getattr(plain, name)})
    for i, fault in enumerate(case.faults):
        for simple in _simpler_fault(fault):
            yield change(case, faults=(*case.faults[:i], simple, *case.faults[i + 1 :]))


def _fewer(case: Case) -> Iterator[Case]:
    """Cases with fewer nodes."""
    names = case.names
    if isinstance(names, int):
        for count in sorted({2, names // 2, names - 1} - {0, 1, names}):
            yield dataclasses.replace(case, names=count, founders=min(case.founders, count))
        return
    for i, name in enumerate(names if len(names) > 1 else ""):
        founders = case.founders - (i < case.founders)
        if founders or not case.founders:
            yield dataclasses.replace(
                case,
                names=names.replace(name, ""),
                founders=founders,
                faults=tuple(f for f in case.faults if name not in (f.a, f.b) or f.after),
                unlinked=tuple(pair for pair in case.unlinked if name not in pair),
            )


def _simpler_fault(fault: Fault) -> Iterator[Fault]:
    if fault.kind in _LESS:
        yield dataclasses.replace(fault, kind=_LESS[fault.kind])
    if fault.after and fault.count > 1:
        yield dataclasses.replace(fault, count=1)
    if fault.seconds != 1.0:
        yield dataclasses.replace(fault, seconds=1.0)
