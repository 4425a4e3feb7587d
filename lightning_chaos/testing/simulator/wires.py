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
from lightning_chaos.testing.simulator.node import Lack, Node, Nodes
from lightning_chaos.testing.simulator.paths import Paths
from lightning_chaos.testing.simulator.worker import Worker

WAITS_S = 1.0
"""How long a call is waited for, or an answer to one, before the worker complains."""
MEETS_S = 5.0
"""The same for one that was never there."""
LOOK_S = 0.1
"""How often a lost connection is dialled."""
NEVER = float("inf")
CALM_S = 0.5
"""How often it is once the worker has complained."""


@dataclass(eq=False, slots=True)
class Wire:
    """Frames from one worker to another."""

    source: Node
    target: Node
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

    def reaches(self, a: Node, b: Node) -> bool:
        """There is a data connection between the workers of these."""
        lost = b.uid in a.lacks or a.uid in b.lacks
        return b.worker_alive and not lost and not self._paths.data_state(a.name, b.name)

    def meets(self, uid: Uid, other: Uid) -> bool:
        """The same, and both ways are fine."""
        a, b = self._nodes[uid], self._nodes[other]
        return self.reaches(a, b) and self._paths.data_joined(a.name, b.name)

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
            elif view.find(one.uid) and view.find(two.uid):
                one.owed[two.uid] = view.joins(one.uid, two.uid)
                self._lack(one, two, self._mends_s(one, two), soon)

    def _mends_s(self, node: Node, other: Node) -> float:
        """Who dials complains when one call was in vain."""
        cut = self._paths.data_state(node.name, other.name) == "cut"
        return 0.0 if _calls(node, other) and (cut or not other.worker_alive) else WAITS_S

    def _lack(self, node: Node, other: Node, bound_s: float, soon: float = 0.0) -> None:
        """See that there will be a connection."""
        until = self._clock.now + bound_s
        lack = node.lacks.get(other.uid)
        if lack is not None:
            lack.until = min(lack.until, until)
            return
        node.spare.discard(other.uid)
        lack = node.lacks[other.uid] = Lack(until)
        self._clock.after(soon, partial(self._mend, node, other, lack))

    def _mend(self, node: Node, other: Node, lack: Lack) -> None:
        """The worker dials again, and tells its peer what came of it."""
        worker, uid, view = node.worker, other.uid, node.worker.view
        if not node.worker_alive or node.lacks.get(uid) is not lack:
            return
        if view is None or not (view.find(uid) and view.find(node.uid)):
            del node.lacks[uid]
        elif other.worker_alive and self._paths.data_joined(node.name, other.name):
            del node.lacks[uid]
            if not view.joins(node.uid, uid):
                node.spare.add(uid)
            frames_lost = node.owed.pop(uid, None)
            if frames_lost:
                worker.say(local.Broken(uid, "the data connection was made anew", True))
            elif frames_lost is not None:
                worker.say(local.Restored(uid))
        else:
            if self._clock.now >= lack.until:
                lack.until = NEVER
                self._complain(node, uid)
            if other.worker_alive or lack.until < NEVER:  # the dead never answer
                again_s = LOOK_S if lack.until < NEVER else CALM_S
                self._clock.after(again_s, partial(self._mend, node, other, lack))

    def _complain(self, node: Node, uid: Uid) -> None:
        node.owed.setdefault(uid, False)
        node.worker.say(local.Broken(uid, "no data connection", False))

    def meet(self, worker: Worker) -> None:
        """A view came: make those links anew that it lacks, and see that the others are there."""
        node, view = self._nodes[worker.uid], worker.view
        assert view is not None
        here = {m.uid for m in (*view.members, *view.learners)} - {node.uid}
        joined = {uid for uid in here if view.joins(node.uid, uid)}
        if view.find(node.uid) is not None:
            for uid in [uid for uid in node.owed if uid not in here and worker.works_with(uid)]:
                worker.say(local.Broken(uid, "the data link of a leaver is lost", False))
        node.owed = {uid: lost and uid in joined for uid, lost in node.owed.items() if uid in here}
        node.spare -= joined
        for uid in sorted(here - joined - node.spare - node.owed.keys()):
            self._into.get(uid, {}).pop(node.uid, None)
            self._complain(node, uid)
            self._lack(node, self._nodes[uid], NEVER)
        for uid in sorted(joined - node.met | joined & node.lacks.keys()):
            other = self._nodes[uid]
            if uid in node.lacks or not self._paths.data_joined(node.name, other.name):
                self._lack(node, other, MEETS_S if _calls(node, other) else NEVER)
            node.met.add(uid)

    # ---- frames ----------------------------------------------------------------------------

    def send(self, worker: Worker, send: Send) -> None:
        """A frame goes on its way."""
        if send.to not in self._nodes:
            return
        into = self._into.setdefault(send.to, {})
        wire = into.get(worker.uid)
        if wire is None:
            wire = into[worker.uid] = Wire(self._nodes[worker.uid], self._nodes[send.to])
        now, delay = self._clock.now, self._paths.delay(worker.me.node) / 2
        at = wire.last = max(wire.last, now + delay)
        wire.frames.append((at, send, bytes(send.payload)))
        self._clock.after(at - now, partial(self._arrive, wire))
        if self._paths.watchers:
            self._paths.sent(send.frame.kind.name, wire.source.name, wire.target.name)

    def _arrive(self, wire: Wire) -> None:
        """Hand over what has arrived, unless the worker does not read now."""
        if not (wire.held or wire.dead):
            self._pump(wire)

    def _pump(self, wire: Wire) -> None:
        node, source = wire.target, wire.source.uid
        worker, frames = node.worker, wire.frames
        if self._into[node.uid].get(source) is not wire or not node.worker_alive:
            return  # broken
        wire.dead = False
        wire.held = worker.hung or worker.view is None
        while frames and not wire.held and frames[0][0] <= self._clock.now:
            if not self.reaches(wire.source, node):
                wire.dead = True
                self._clock.after(LOOK_S, partial(self._pump, wire))
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
        for wire in self._into.get(worker.uid, {}).values():
            if wire.held:
                wire.held = False
                self._clock.after(0.0, partial(self._pump, wire))

    def purge(self, worker: Worker) -> None:
        """Frames not yet sent are forgotten; some may have been."""
        for wires in self._into.values():
            wire = wires.get(worker.uid)
            if wire is not None and wire.frames:
                keep = self._clock.rng.randrange(len(wire.frames) + 1)
                wire.frames = deque(list(wire.frames)[:keep])


def _calls(node: Node, other: Node) -> bool:
    """Of two the one that started later dials."""
    return node.me.incarnation > other.me.incarnation
