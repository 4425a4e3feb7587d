"""Who runs, who should, and how the others ended."""

from __future__ import annotations

import time

from lightning_chaos.storm.facts import Exit
from lightning_chaos.testing.cluster import LocalCluster
from lightning_chaos.testing.lab.faults import Cont, Deed, Kill, Leave, Part, Stop

_SHOWN_LINES = 30


class Crew:
    """The nodes of a storm, as their processes are.

    Args:
        cluster: whose nodes they are.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._sent_away: set[str] = set()
        self.stopped: set[str] = set()
        """By SIGSTOP, and not gone on yet."""
        self.exits: dict[str, Exit] = {}

    @property
    def running(self) -> list[str]:
        """Whose worker has not ended."""
        return [node for node in self._cluster.nodes if node not in self.exits]

    @property
    def expected(self) -> list[str]:
        """Who runs and was not sent away."""
        return [node for node in self.running if node not in self._sent_away]

    def look(self) -> list[str]:
        """Whose worker has ended since the last look."""
        ended = []
        for node in self.running:
            code = self._cluster.exit_code(node)
            if code is not None:
                self.exits[node] = Exit(code, time.time(), self.words(node))
                ended.append(node)
        return ended

    def words(self, node: str) -> str:
        """What its processes printed last."""
        return self._cluster.tail(node, _SHOWN_LINES)

    def meet(self, deed: Deed) -> None:
        """That was done."""
        match deed:
            case Kill(node, part) if part is not Part.PEER:
                self._sent_away.add(node)
            case Leave(node):
                self._sent_away.add(node)
            case Stop(node):
                self.stopped.add(node)
            case Cont(node):
                self.stopped.discard(node)
            case _:
                pass
