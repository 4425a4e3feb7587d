"""Runs of the real protocol in virtual time, with random faults; see docs/simulator.md.

``simulate(draw(17))`` plays the case of a seed; ``shrink`` finds the least of it that still
breaks a promise.  Only virtual time passes: a run takes some tens of milliseconds.
"""

from lightning_chaos.testing.simulator.case import Case, Fault
from lightning_chaos.testing.simulator.draw import draw, draw_large, draw_short
from lightning_chaos.testing.simulator.outcome import Outcome
from lightning_chaos.testing.simulator.run import simulate
from lightning_chaos.testing.simulator.shrink import shrink

__all__ = [
    "Case",
    "Fault",
    "Outcome",
    "draw",
    "draw_large",
    "draw_short",
    "shrink",
    "simulate",
]
