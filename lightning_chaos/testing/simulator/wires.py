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

GIVEN_UP = 0.0
"""Until when a connection is dialled that no view wants."""
LOOK_S = 0.1
"""How often somebody looks whether a connection is there again."""


@dataclass(eq=False, slots=True)
class Wire:
    """Frames from one worker to another."""

    frames: deque[tuple[float, Send, bytes]] = field(default_factory=deque)
    """When each arrives, and its payload as it was when it was sent."""
    held: bool = False
    """The receiver does not read now."""
    dead: bool = False
    """There is no connection now; it is looked at again and again."""
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
        self._into: dict[Uid, dict[Uid, Wire]] = {}
        """By receiver and sender."""

    def _joined(self, a: Node, b: Node) -> bool:
        return self._paths.joined(a.name, b.name)

    def reaches(self, uid: Uid, other: Uid) -> bool:
        """There is a data connection between these workers."""
        a, b = self._nodes[uid], self._nodes[other]
        lost = other in a.missing or other in a.given_up or uid in b.given_up
        return b.worker_alive and not lost and not self._paths.state(a.name, b.name)

    def meets(self, uid: Uid, other: Uid) -> bool:
        """The same, and both ways are fine."""
        return self.reaches(uid, other) and self._joined(self._nodes[uid], self._nodes[other])

    # ---- breaking and mending --------------------------------------------------------------

    def break_(self, a: Node, b: Node, *, polite: bool = False) -> None:
        """The connection is reset: frames under way are lost, unless a ends it politely."""
        for one, two in ((a, b), (b, a)):
            if one is b or not polite:
                self._into.get(two.uid, {}).pop(one.uid, None)
            worker, view = one.worker, one.worker.view
            if not one.worker_alive or view is None or worker.apart or worker.all_done:
                continue
            soon = self._paths.delay(one.name)
            if view.find(one.uid) and worker.works_with(two.uid):
                lost = local.Broken(two.uid, "the data link of a leaver is lost", False)
                self._clock.after(soon, partial(worker.say, lost))
            elif view.find(one.uid) and view.find(two.uid) and view.joins(one.uid, two.uid):
                self._miss(one, two, self._clock.now + DIALS_S, soon)

    def _miss(self, node: Node, other: Node, until: float, soon: float = 0.0) -> None:
        """Dial it until then."""
        if other.uid not in node.missing:
            self._clock.after(soon, partial(self._mend, node, other))
        node.missing[other.uid] = max(until, node.missing.get(other.uid, until))

    def _mend(self, node: Node, other: Node) -> None:
        """The worker dials again, and tells its peer what came of it."""
        worker, until = node.worker, node.missing.get(other.uid)
        wanted = worker.view is not None and worker.view.find(other.uid) is not None
        if until is None or not node.worker_alive:
            return
        if other.worker_alive and self._joined(node, other):
            del node.missing[other.uid]
            worker.say(local.Broken(other.uid, "the data connection was made anew", True))
        elif wanted and self._clock.now < until:
            self._clock.after(LOOK_S, partial(self._mend, node, other))
        else:
            node.missing[other.uid] = GIVEN_UP  # a view that wants it again has it dialled anew
            if wanted:
                worker.say(local.Broken(other.uid, "data connection lost", False))

    def meet(self, worker: Worker) -> None:
        """A view came: give up the links that it lacks, dial those that are not there."""
        node, view = self._nodes[worker.uid], worker.view
        assert view is not None
        for member in (*view.members, *view.learners):
            if not view.joins(node.uid, member.uid):
                node.missing.pop(member.uid, None)
                node.given_up.add(member.uid)
                self._into.get(member.uid, {}).pop(node.uid, None)
            elif member.uid in node.given_up:
                self._take_back(node, self._nodes[member.uid], self._clock.now + MEETS_S)
        for uid, until in list(node.missing.items()):
            if until < self._clock.now:
                del node.missing[uid]  # dialled in vain
            self._miss(node, self._nodes[uid], self._clock.now + MEETS_S)

    def _take_back(self, node: Node, other: Node, until: float) -> None:
        """Dial one to which there was no link; nothing was lost on it."""
        view = node.worker.view
        if other.uid not in node.given_up or view is None or not view.joins(node.uid, other.uid):
            return
        if other.worker_alive and self._joined(node, other):
            node.given_up.discard(other.uid)
        elif self._clock.now < until:
            self._clock.after(LOOK_S, lambda: self._take_back(node, other, until))
        else:
            node.worker.say(local.Broken(other.uid, "no data connection", False))

    # ---- frames ----------------------------------------------------------------------------

    def send(self, worker: Worker, send: Send) -> None:
        """A frame goes on its way."""
        if send.to not in self._nodes:
            return
        wire = self._into.setdefault(send.to, {}).setdefault(worker.uid, Wire())
        delay = self._paths.delay(worker.me.node) / 2
        at = wire.last = max(wire.last, self._clock.now + delay)
        wire.frames.append((at, send, bytes(send.payload)))
        self._clock.after(at - self._clock.now, partial(self._arrive, worker.uid, send.to, wire))
        if self._paths.watchers:
            kind, to = send.frame.kind.name, self._nodes[send.to].name
            self._paths.sent(kind, worker.me.node, to)

    def _arrive(self, source: Uid, to: Uid, wire: Wire) -> None:
        """Hand over what has arrived, unless the worker does not read now."""
        if not (wire.held or wire.dead):
            self._pump(source, to, wire)

    def _pump(self, source: Uid, to: Uid, wire: Wire) -> None:
        node = self._nodes[to]
        worker, frames = node.worker, wire.frames
        if self._into[to].get(source) is not wire or not node.worker_alive:
            return  # broken
        wire.dead = False
        wire.held = worker.hung or worker.view is None
        while frames and not wire.held and frames[0][0] <= self._clock.now:
            if not self.reaches(source, to):
                wire.dead = True
                self._clock.after(LOOK_S, partial(self._pump, source, to, wire))
                return
            _, send, payload = frames[0]
            where = worker.exchange.place(source, send.frame)
            if where is Verdict.PAUSE:
                wire.held = True
            else:
                frames.popleft()
                if isinstance(where, Landing) and where.memory is not None:
                    where.memory[:] = payload
                    worker.exchange.complete(source, send.frame, where)
            worker.carry_out()

    def resume(self, worker: Worker) -> None:
        """Frames left unread are looked at again."""
        for source, wire in self._into.get(worker.uid, {}).items():
            if wire.held:
                wire.held = False
                self._clock.after(0.0, partial(self._pump, source, worker.uid, wire))

    def purge(self, worker: Worker) -> None:
        """Frames not yet sent are forgotten; some may have been."""
        for wires in self._into.values():
            wire = wires.get(worker.uid)
            if wire is not None and wire.frames:
                keep = self._clock.rng.randrange(len(wire.frames) + 1)
                wire.frames = deque(list(wire.frames)[:keep])
