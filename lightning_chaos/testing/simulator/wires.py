"""Data connections between workers, as :mod:`lightning_chaos.worker.mesh` makes them.

Frames of one direction keep their order.  A connection that breaks loses those under way; it is
dialled anew, and the worker tells its peer what came of that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial

from lightning_chaos.collective.actions import Landing, Send, Verdict
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import Uid
from lightning_chaos.testing.simulator.clock import Clock
from lightning_chaos.testing.simulator.node import Node, Nodes
from lightning_chaos.testing.simulator.paths import Paths
from lightning_chaos.testing.simulator.worker import Worker

DIALS_S = 1.0
"""How long a lost connection is dialled before the worker complains."""
MEETS_S = 5.0
"""The same when a new view names the lost one again."""


@dataclass(eq=False)
class Wire:
    """Frames from one worker to another."""

    frames: deque[tuple[float, Send, bytes]] = field(default_factory=deque)
    """When each arrives, and its payload as it was when it was sent."""
    paused: bool = False
    last: float = 0.0


class Wires:
    """All data connections of a run.

    Args:
        clock: of the run.
        paths: between the machines.
        nodes: every incarnation.
    """

    def __init__(self, clock: Clock, paths: Paths, nodes: Nodes) -> None:
        self._clock, self._paths, self._nodes = clock, paths, nodes
        self._wires: dict[tuple[Uid, Uid], Wire] = {}

    def _state(self, a: Node, b: Node) -> str:
        return self._paths.state(a.name, b.name)

    def reaches(self, uid: Uid, other: Uid) -> bool:
        """There is a data connection between these workers."""
        a, b = self._nodes[uid], self._nodes[other]
        lost = other in a.missing or other in a.given_up or uid in b.given_up
        return b.worker_alive and not lost and not self._state(a, b)

    # ---- breaking and mending --------------------------------------------------------------

    def break_(self, a: Node, b: Node, *, polite: bool = False) -> None:
        """The connection is reset: frames under way are lost, unless a ends it politely."""
        for one, two in ((a, b), (b, a)):
            if one is b or not polite:
                self._wires.pop((one.uid, two.uid), None)
            worker, view = one.worker, one.worker.view
            if not one.worker_alive or view is None or worker.apart or worker.all_done:
                continue
            soon = self._paths.delay(one.name)
            if view.find(one.uid) and worker.works_with(two.uid):
                lost = local.Broken(two.uid, "the data link of a leaver is lost", False)
                self._clock.after(soon, partial(worker.say, lost))
            elif view.find(one.uid) and view.find(two.uid) and view.joins(one.uid, two.uid):
                one.missing.add(two.uid)
                self._clock.after(soon, partial(self._mend, one, two, self._clock.now + DIALS_S))

    def _mend(self, node: Node, other: Node, until: float) -> None:
        """The worker dials again, and tells its peer what came of it."""
        worker = node.worker
        if other.uid not in node.missing or not node.worker_alive:
            return
        if other.worker_alive and not self._state(node, other):
            node.missing.discard(other.uid)
            worker.say(local.Broken(other.uid, "the data connection was made anew", True))
        elif self._clock.now < until:
            self._clock.after(0.05, lambda: self._mend(node, other, until))
        elif worker.view is not None and worker.view.find(other.uid):
            worker.say(local.Broken(other.uid, "data connection lost", False))

    def meet(self, worker: Worker) -> None:
        """A view came: give up the links that it lacks, dial those that are not there."""
        node, view = self._nodes[worker.uid], worker.view
        assert view is not None
        for member in (*view.members, *view.learners):
            if not view.joins(node.uid, member.uid):
                node.missing.discard(member.uid)
                node.given_up.add(member.uid)
                self._wires.pop((node.uid, member.uid), None)
            elif member.uid in node.given_up:
                self._take_back(node, self._nodes[member.uid], self._clock.now + MEETS_S)
        for uid in list(node.missing):
            self._mend(node, self._nodes[uid], self._clock.now + MEETS_S)

    def _take_back(self, node: Node, other: Node, until: float) -> None:
        """Dial one to which there was no link; nothing was lost on it."""
        view = node.worker.view
        if other.uid not in node.given_up or view is None or not view.joins(node.uid, other.uid):
            return
        if other.worker_alive and not self._state(node, other):
            node.given_up.discard(other.uid)
        elif self._clock.now < until:
            self._clock.after(0.05, lambda: self._take_back(node, other, until))
        else:
            node.worker.say(local.Broken(other.uid, "no data connection", False))

    # ---- frames ----------------------------------------------------------------------------

    def send(self, worker: Worker, send: Send) -> None:
        """A frame goes on its way."""
        if send.to not in self._nodes:
            return
        wire = self._wires.setdefault((worker.uid, send.to), Wire())
        delay = self._paths.delay(worker.me.node) / 2
        at = wire.last = max(wire.last, self._clock.now + delay)
        wire.frames.append((at, send, bytes(send.payload)))
        self._clock.after(at - self._clock.now, partial(self._pump, worker.uid, send.to))
        self._paths.sent(send.frame.kind.name, worker.me.node, self._nodes[send.to].name)

    def _pump(self, source: Uid, to: Uid) -> None:
        """Hand over what has arrived."""
        wire, node = self._wires.get((source, to)), self._nodes[to]
        worker = node.worker
        if worker.hung or not node.worker_alive or worker.view is None:
            return
        while wire and wire.frames and wire.frames[0][0] <= self._clock.now and not wire.paused:
            if not self.reaches(source, to):
                self._clock.after(0.05, partial(self._pump, source, to))
                return
            _, send, payload = wire.frames[0]
            where = worker.exchange.place(source, send.frame)
            if where is Verdict.PAUSE:
                wire.paused = True
            else:
                wire.frames.popleft()
                if isinstance(where, Landing) and where.memory is not None:
                    where.memory[:] = payload
                    worker.exchange.complete(source, send.frame, where)
            worker.carry_out()

    def resume(self, worker: Worker) -> None:
        """Frames left unread are looked at again."""
        for (source, to), wire in self._wires.items():
            if to == worker.uid and wire.frames:
                wire.paused = False
                self._clock.after(0.0, partial(self._pump, source, to))

    def purge(self, worker: Worker) -> None:
        """Frames not yet sent are forgotten; some may have been."""
        for (source, _), wire in self._wires.items():
            if source == worker.uid and wire.frames:
                keep = self._clock.rng.randrange(len(wire.frames) + 1)
                wire.frames = deque(list(wire.frames)[:keep])
