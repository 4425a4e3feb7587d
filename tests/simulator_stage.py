"""A simulated run that a test steers by hand."""

from __future__ import annotations

from collections.abc import Callable

from lightning_chaos.testing.simulator import Case, Fault
from lightning_chaos.testing.simulator.faults import strike
from lightning_chaos.testing.simulator.node import Node
from lightning_chaos.testing.simulator.run import begin, settle
from lightning_chaos.testing.simulator.world import World

NEVER = 1000.0


class Stage:
    """A run of these nodes, in which all train (or only the founders, if there are any).

    Args:
        names: one letter for each.
        seed: of all chance.
        same_machine: peers see when the process of another is gone.
        founders: so many, the first ones, begin as members of one view; 0: all join.
    """

    def __init__(
        self, names: str, *, seed: int = 1, same_machine: bool = False, founders: int = 0
    ) -> None:
        self.story: list[str] = []
        case = Case(seed, names, same_machine=same_machine, founders=founders)
        self.world = World(case, self.story)
        begin(self.world)
        first = names[:founders] or names
        self.until(lambda: all(map(self.world.live, first)), "all are started")
        self.until(lambda: bool(self.world.invariants.members()), "the run is founded")
        settle(self.world)
        self.sent: list[tuple[str, str, str]] = []
        self.world.paths.watchers.append(lambda *what: self.sent.append(what))

    def node(self, name: str) -> Node:
        node = self.world.live(name)
        assert node is not None
        return node

    def epoch(self, name: str) -> int:
        view = self.node(name).peer.view
        assert view is not None
        return view.epoch

    def until(self, condition: Callable[[], bool], what: str) -> None:
        self.world.until(condition, what)

    def run(self, seconds: float) -> None:
        self.world.clock.run_until(self.world.clock.now + seconds)

    def strike(self, kind: str, a: str, b: str = "", seconds: float = NEVER) -> None:
        strike(self.world, Fault(self.world.clock.now, kind, a, b, seconds))

    def by_age(self) -> list[str]:
        """Names of the members, the lead first."""
        return [member.node for member in self.world.invariants.newest().members]

    def cut(self, side: str, other: str) -> None:
        for a in side:
            for b in other:
                self.strike("cut", a, b)

    def heal(self) -> None:
        self.world.heal()
        for name in self.world.names:
            self.world.start(name)
        settle(self.world)

    def rounds(self, names: str) -> list[int]:
        return [self.node(name).worker.begun for name in names]

    def told(self, text: str) -> bool:
        return any(text in line for line in self.story)
