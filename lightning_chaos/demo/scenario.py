"""What happens in the demo and when: decided by what the nodes log, never by time.

A newcomer joins; some rounds later the oldest node is killed; some rounds later the youngest of
the first nodes leaves; some rounds later the run is asked to end.  No processes, no clock: the
driver feeds events and carries out orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_chaos.monitor.runlog import LogEvent

Kind = Literal["kill", "leave", "stop"]

# Fewer members left could not show that the others go on together.
FEWEST_LEFT = 2


@dataclass(frozen=True, slots=True)
class Order:
    """Something the driver must do now."""

    kind: Kind
    node: str
    """Whom it meets, '' for the whole run."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Rounds between the events of the demo."""

    join_at: int = 30
    after_join: int = 20
    after_kill: int = 20
    after_leave: int = 50


class Scenario:
    """Turns events of the run logs into orders.

    Args:
        founders: nodes that start first, all at once.
        newcomer: node that joins at round ``pace.join_at``.
        pace: rounds between the events.
    """

    def __init__(self, founders: Sequence[str], newcomer: str, pace: Pace) -> None:
        self._founders = founders
        self._newcomer = newcomer
        self._pace = pace
        self._members: tuple[str, ...] = ()
        self._epoch = 0
        self._round = -1
        self._round_epoch = 0
        self._script = self._play()
        self.waiting_for = "the nodes to find each other"
        """What comes next, for people."""
        self.done = False
        """All orders have been given."""

    def step(self, events: Iterable[LogEvent]) -> list[Order]:
        """Take in new events; returns the orders that follow from them."""
        for event in events:
            if event.event == "view" and event["epoch"] > self._epoch:
                self._epoch = event["epoch"]
                self._members = tuple(event["members"])
            elif event.event == "round" and event["round"] > self._round:
                self._round = event["round"]
                self._round_epoch = event["epoch"]
        orders: list[Order] = []
        for order in self._script:
            if order is None:
                return orders
            orders.append(order)
        self.done = True
        return orders

    def _play(self) -> Iterator[Order | None]:
        pace = self._pace
        yield from self._until(lambda: self._round >= 0, "the first round")
        yield from self._until(
            lambda: self._newcomer in self._members,
            f"{self._newcomer} to be admitted (it asks at round {pace.join_at})",
        )
        yield from self._rounds(pace.after_join, "the newcomer joined")
        if len(self._members) > FEWEST_LEFT:
            victim = self._members[0]
            yield Order("kill", victim)
            yield from self._until_gone(victim, pace.after_kill, "the kill")
        leaver = next((m for m in reversed(self._members) if m in self._founders), None)
        if leaver is not None and len(self._members) > FEWEST_LEFT:
            yield Order("leave", leaver)
            yield from self._until_gone(leaver, pace.after_leave, "the leave")
        yield Order("stop", "")
        self.waiting_for = "the nodes to end by themselves (fit, then test)"

    def _until_gone(self, node: str, rounds: int, after: str) -> Iterator[None]:
        yield from self._until(
            lambda: node not in self._members, f"the others to agree on a view without {node}"
        )
        yield from self._rounds(rounds, after)

    def _rounds(self, count: int, after: str) -> Iterator[None]:
        """Wait until that many rounds of the latest view, or of later ones, are stable."""
        epoch = self._epoch
        yield from self._until(
            lambda: self._round_epoch >= epoch, f"the first stable round after {after}"
        )
        last = self._round + count
        yield from self._until(
            lambda: self._round >= last, f"{count} stable rounds after {after} (round {last})"
        )

    def _until(self, condition: Callable[[], bool], what: str) -> Iterator[None]:
        self.waiting_for = what
        while not condition():
            yield None
