"""The state of the run while it runs, folded from the logs."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from lightning_chaos.monitor.runlog import LogEvent

_RATE_S = 5.0


@dataclass(slots=True)
class Watch:
    """What the driver has to know at every moment."""

    members: tuple[str, ...] = ()
    epoch: int = 0
    round: int = -1
    pulled: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    last: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Node to (epoch, time) of its last stable round."""
    _recent: deque[float] = field(default_factory=deque)

    def apply(self, event: LogEvent) -> None:
        """Take in one event."""
        match event.event:
            case "view" if event["epoch"] > self.epoch:
                self.epoch, self.members = event["epoch"], tuple(event["members"])
            case "round":
                self.last[event.node] = (event["epoch"], event.t)
                if event["round"] > self.round:
                    self.round = event["round"]
                    self._recent.append(event.t)
            case "start":
                self.started.add(event.node)
            case "pull":
                self.pulled.add(event.node)
            case "final":
                self.finished.add(event.node)

    def rounds_per_s(self, now: float) -> float:
        """Over the last five seconds."""
        while self._recent and self._recent[0] < now - _RATE_S:
            self._recent.popleft()
        return len(self._recent) / _RATE_S

    def not_in(self, nodes: Collection[str], since: float) -> list[str]:
        """Those of the nodes that have told no round of the newest view since then."""
        return [
            node
            for node in nodes
            if node not in self.members
            or (known := self.last.get(node)) is None
            or known[0] < self.epoch
            or known[1] < since
        ]
