"""Storms: many faults drawn from a seed, none of which a run may excuse itself with."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from lightning_chaos.errors import ConfigError
from lightning_chaos.testing.lab.conditions import FREE, Cut, Shape
from lightning_chaos.testing.lab.faults import At, Fault, Join, Kill, Leave, Part, Schedule
from lightning_chaos.testing.lab.survival import survivable

WEIGHTS: Mapping[str, float] = {
    "kill": 3,
    "stop": 2,
    "cut": 3,
    "cut_one_way": 1,
    "throttle": 2,
    "leave": 1,
    "join": 3,
}
"""How often each kind is drawn, one against another."""
THROTTLED = Shape(rate_mbit=20.0, delay_ms=30.0, jitter_ms=5.0)
_TRIES = 20
_QUIET_S = 5.0
"""At the end, so that everything can come back."""


def storm(
    seed: int,
    nodes: Sequence[str],
    minutes: float,
    *,
    every_s: float = 8.0,
    most_ended: int = 8,
    least_nodes: int = 3,
    weights: Mapping[str, float] = WEIGHTS,
    shape: Shape = FREE,
) -> Schedule:
    """A survivable schedule by seconds; the same for the same arguments.

    Stopped nodes go on, cut links heal and throttled links are free again after two to six
    seconds.  A node that joins gets a new name, and joins only where one has ended.

    Args:
        seed: of all that is drawn.
        nodes: members when it begins, oldest first.
        minutes: how long it lasts.
        every_s: seconds between two faults, on average (half to one and a half times that).
        most_ended: most faults that end a process (kill of either part, leave).
        least_nodes: no node is ended when only so many run.
        weights: kind to weight; kinds left out do not happen.
        shape: what links are like that are not throttled.

    Raises:
        ConfigError: an unknown kind, fewer than two nodes, or a time that is none.
    """
    if unknown := weights.keys() - WEIGHTS.keys():
        raise ConfigError(f"weights={sorted(unknown)}: kinds are {', '.join(WEIGHTS)}")
    if len(nodes) < 2:
        raise ConfigError(f"a storm needs at least two nodes, not {len(nodes)}")
    if not (0 < minutes < math.inf and 0 < every_s < math.inf):
        raise ConfigError(
            f"a storm of {minutes:g} minutes, a fault each {every_s:g} s: neither 0, "
            "nor without end"
        )
    painter = _Painter(random.Random(seed), list(nodes), most_ended, least_nodes, weights, shape)
    t = every_s
    while t < minutes * 60 - _QUIET_S - 6.0:
        painter.add(round(t, 2))
        t += every_s * painter.rng.uniform(0.5, 1.5)
    return Schedule.of(*painter.faults)


class _Painter:
    def __init__(
        self,
        rng: random.Random,
        nodes: list[str],
        most_ended: int,
        least_nodes: int,
        weights: Mapping[str, float],
        shape: Shape,
    ) -> None:
        self.rng = rng
        self.faults: list[Fault] = []
        self._nodes = nodes
        self._running = list(nodes)
        self._left = most_ended
        self._least = least_nodes
        self._weights = weights
        self._shape = shape
        self._names = 0

    def add(self, t: float) -> None:
        """One more fault, with its cure, unless a run need not survive any."""
        for _ in range(_TRIES):
            drawn = self._draw(At(seconds=t))
            if drawn and self._survivable(drawn):
                self.faults += drawn
                self._note(drawn[0])
                return

    def _draw(self, now: At) -> list[Fault]:
        (kind,) = self.rng.choices([*self._weights], [*self._weights.values()])
        node, other = self.rng.sample(self._running, 2)
        later = At(seconds=round(now.place + self.rng.uniform(2.0, 6.0), 2))
        how = self.rng.choice([Cut.SILENT, Cut.SILENT, Cut.RESET])
        part = self.rng.choice([Part.BOTH, Part.WORKER, Part.PEER])
        may_end = self._left > 0 and len(self._running) > self._least
        match kind:
            case "kill" if may_end or (part is Part.PEER and self._left > 0):
                return [now.kill(node, part)]
            case "leave" if may_end:
                return [now.leave(node)]
            case "join" if len(self._running) < len(self._nodes):
                return [now.join(f"late{self._names + 1}")]
            case "stop":
                return [now.stop(node), later.cont(node)]
            case "cut":
                return [now.cut(node, other, how), later.heal(node, other)]
            case "cut_one_way":
                return [now.cut_one_way(node, other), later.heal(node, other)]
            case "throttle":
                return [
                    now.throttle(node, other, THROTTLED),
                    later.throttle(node, other, self._shape),
                ]
        return []

    def _survivable(self, drawn: list[Fault]) -> bool:
        try:
            return survivable(Schedule.of(*self.faults, *drawn), self._nodes).survives
        except ConfigError:  # a cure of an earlier fault comes when its node has ended
            return False

    def _note(self, fault: Fault) -> None:
        match fault.deed:
            case Kill(node, part):
                self._left -= 1
                if part is not Part.PEER:
                    self._running.remove(node)
            case Leave(node):
                self._left -= 1
                self._running.remove(node)
            case Join(node):
                self._names += 1
                self._running.append(node)
            case _:
                pass
