"""The network between nodes in virtual time: links that delay, lose, stall, break and come back.

Control connections carry messages of peers, wires carry frames of workers.  A path between two
machines is fine, cut (connections are reset, dialling fails) or stalled (nothing gets through,
nothing is reset).
"""

from __future__ import annotations

import abc
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from protocol_checks import Violation
from protocol_worker import Worker
from transcript import show

from lightning_chaos.collective.actions import Landing, Send, Verdict
from lightning_chaos.protocol import events, local
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.messages import Message, Status
from lightning_chaos.protocol.standing import Role
from lightning_chaos.protocol.values import Member, Uid


@dataclass(eq=False)
class Node:
    """One incarnation: peer and worker."""

    me: Member
    peer: Membership
    worker: Worker
    peer_alive: bool = True
    worker_alive: bool = True
    paused_until: float = 0.0
    mail: deque[events.Event] = field(default_factory=deque)
    wanted: dict[Uid, float] = field(default_factory=dict)
    """Whom to hold a connection to, and since when."""
    up: set[Uid] = field(default_factory=set)
    """Of whom Linked was the last report."""
    to_worker_at: float = 0.0
    to_peer_at: float = 0.0
    search_at: float = 0.0
    missing: set[Uid] = field(default_factory=set)
    """Workers whose data link was lost and not made anew."""

    @property
    def uid(self) -> Uid:
        return self.me.uid

    @property
    def member(self) -> bool:
        return self.peer_alive and self.peer.role in (Role.MEMBER, Role.LEAVING)


@dataclass(eq=False)
class Conn:
    """One control connection."""

    open: dict[Uid, float]
    """From when on each end may use it."""
    last: dict[Uid, float]
    """When the last message to each end arrives."""
    broken: bool = False


@dataclass(eq=False)
class Wire:
    """Frames from one worker to another."""

    frames: deque[tuple[float, Send, bytes]] = field(default_factory=deque)
    paused: bool = False
    last: float = 0.0


class Network(abc.ABC):
    """The clock, the nodes and what is between them.

    Args:
        rng: source of all chance.
        story: takes a line for everything that happens.
        same_machine: peers see when the process of another is gone.
    """

    def __init__(self, rng: random.Random, story: list[str], *, same_machine: bool) -> None:
        self.rng = rng
        self.story = story
        self.same_machine = same_machine
        self.now = 0.0
        self.nodes: dict[Uid, Node] = {}
        self.path: dict[frozenset[str], str] = {}
        """'cut' or 'stalled' pairs of names; any other pair is fine."""
        self.heals: dict[frozenset[str], float] = {}
        """When such a path is fine again."""
        self.on_send: Callable[[str, str, str], None] = lambda kind, sender, to: None
        """Told of every message but heartbeats, just after it went out."""
        self._conns: dict[frozenset[Uid], Conn] = {}
        self._wires: dict[tuple[Uid, Uid], Wire] = {}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count(1)
        self._slow_until = 0.0

    @abc.abstractmethod
    def give(self, node: Node, event: events.Event) -> None:
        """An event for a peer."""

    # ---- time ------------------------------------------------------------------------------

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        """Do this so much later."""
        heapq.heappush(self._agenda, (self.now + seconds, next(self._serial), work))

    def run_until(self, end: float) -> None:
        """Let everything happen that is due by then."""
        while self._agenda and self._agenda[0][0] <= end:
            self.now, _, work = heapq.heappop(self._agenda)
            work()
        self.now = end

    def uniform(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    def delay(self) -> float:
        """Of one message, seconds."""
        if self.now < self._slow_until:
            return self.rng.uniform(0.001, 0.6)
        return self.rng.choice((0.001, 0.003, 0.01, 0.03, self.rng.uniform(0, 0.15)))

    def tell(self, text: str) -> None:
        """Write it into the story."""
        self.story.append(f"{self.now:7.3f} {text}")

    def fail(self, text: str) -> None:
        raise Violation(text)

    def slow(self, seconds: float) -> None:
        """Messages take long for a while."""
        self._slow_until = self.now + seconds

    # ---- control links ---------------------------------------------------------------------

    def state(self, a: Uid, b: Uid) -> str:
        """Of the path between two machines: '', 'cut' or 'stalled'."""
        return self.path.get(frozenset((_name(a), _name(b))), "")

    def _dial(self, node: Node) -> None:
        view = node.peer.view
        in_view = {m.uid for m in (*view.members, *view.learners)} if view else set()
        for uid, since in list(node.wanted.items()):
            if self._linked(node.uid, uid):
                continue
            other = self.nodes[uid]
            gone = self.same_machine and not other.peer_alive
            if other.peer_alive and not self.state(node.uid, uid):
                self._connect(node, uid)
            elif gone or self.now - since > 1.0:
                self._report_down(node, uid, "connection refused")
                if uid not in in_view or gone:
                    del node.wanted[uid]
                else:
                    node.wanted[uid] = float("inf")  # reported; dialled on and on

    def _linked(self, a: Uid, b: Uid) -> bool:
        conn = self._conns.get(frozenset((a, b)))
        return conn is not None and not conn.broken

    def _connect(self, node: Node, uid: Uid) -> None:
        other = self.nodes[uid]
        if self._linked(node.uid, uid) or not other.peer_alive or self.state(node.uid, uid):
            return
        at = self.now + self.delay()
        opened = {node.uid: at, uid: at + self.delay()}
        conn = Conn(opened, dict(opened))
        self._conns[frozenset((node.uid, uid))] = conn
        for one, two in ((node, other), (other, node)):
            self.after(conn.open[one.uid] - self.now, partial(self._up, conn, one, two))

    def _up(self, conn: Conn, node: Node, other: Node) -> None:
        if other.uid in node.wanted:
            node.wanted[other.uid] = self.now
        if not conn.broken and node.peer_alive and other.uid not in node.up:
            node.up.add(other.uid)
            self.give(node, events.Linked(other.me))

    def break_conn(self, a: Uid, b: Uid) -> None:
        """The connection is reset: what is under way is lost."""
        conn = self._conns.get(frozenset((a, b)))
        if conn is None or conn.broken:
            return
        conn.broken = True
        for uid, other in ((a, b), (b, a)):
            node = self.nodes[uid]
            self.after(self.delay(), partial(self._reset, node, other))

    def _reset(self, node: Node, uid: Uid) -> None:
        """A connection broke: dialled once more before it counts as down."""
        if not node.peer_alive or self._linked(node.uid, uid):
            return
        view = node.peer.view
        needed = uid in node.wanted or (view is not None and view.find(uid) is not None)
        other = self.nodes[uid]
        if needed and other.peer_alive and not self.state(node.uid, uid):
            self._connect(node, uid)
        elif needed and other.peer_alive:
            self.after(self.uniform(0.0, 0.5), lambda: self._still_down(node, uid))
        else:
            self._report_down(node, uid, "connection reset")

    def _still_down(self, node: Node, uid: Uid) -> None:
        if not self._linked(node.uid, uid):
            self._report_down(node, uid, "connection reset")
            node.wanted.setdefault(uid, float("inf"))

    def _report_down(self, node: Node, uid: Uid, reason: str) -> None:
        if not node.peer_alive:
            return
        if node.wanted.get(uid) != float("inf"):
            node.up.discard(uid)
            self.give(node, events.Unlinked(uid, reason))
        if self.same_machine and not self.nodes[uid].peer_alive:
            self.give(node, events.ProcessGone(uid))

    def _send(self, node: Node, to: Uid, message: Message) -> None:
        conn = self._conns.get(frozenset((node.uid, to)))
        if conn is None or conn.broken or conn.open[node.uid] > self.now:
            return
        at = conn.last[to] = max(conn.last[to], self.now + self.delay())
        self.after(at - self.now, lambda: self._arrive(conn, node.uid, to, message))
        if not isinstance(message, Status):
            self.on_send(type(message).__name__, _name(node.uid), _name(to))

    def _arrive(self, conn: Conn, sender: Uid, to: Uid, message: Message) -> None:
        node = self.nodes[to]
        if conn.broken or not node.peer_alive:
            return
        if self.state(sender, to) == "stalled":
            # TCP sends it again until it gets through, in order with what comes after.
            self.after(0.02, lambda: self._arrive(conn, sender, to, message))
            return
        if not isinstance(message, Status):
            self.tell(f"{sender} > {to} {show(message)}")
        self.give(node, events.Heard(sender, message))  # type: ignore[arg-type]

    # ---- data links ------------------------------------------------------------------------

    def reaches(self, worker: Worker, uid: Uid) -> bool:
        """There is a data link to it."""
        node, other = self.nodes[worker.uid], self.nodes[uid]
        return other.worker_alive and uid not in node.missing and not self.state(worker.uid, uid)

    def break_data(self, a: Node, b: Node, *, polite: bool = False) -> None:
        """The data connection is reset: frames under way are lost, unless a ends it politely."""
        for one, two in ((a, b), (b, a)):
            if one is b or not polite:
                self._wires.pop((one.uid, two.uid), None)
            worker = one.worker
            view = worker.view
            if not one.worker_alive or view is None or worker.apart or worker.all_done:
                continue
            if view.find(one.uid) and worker.works_with(two.uid):
                lost = local.Broken(two.uid, "the data link of a leaver is lost", False)
                self.after(self.delay(), partial(one.worker.say, lost))
            elif view.find(one.uid) and view.find(two.uid):
                one.missing.add(two.uid)
                self.after(self.delay(), partial(self._mend_soon, one, two, self.now + 1))

    def _mend_soon(self, node: Node, other: Node, until: float) -> None:
        """The worker dials again, and tells its peer what came of it."""
        if other.uid not in node.missing or not node.worker_alive:
            return
        if other.worker_alive and not self.state(node.uid, other.uid):
            node.missing.discard(other.uid)
            node.worker.say(local.Broken(other.uid, "the data connection was made anew", True))
        elif self.now < until:
            self.after(0.05, lambda: self._mend_soon(node, other, until))
        elif node.worker.view is not None and node.worker.view.find(other.uid):
            node.worker.say(local.Broken(other.uid, "data connection lost", False))

    def meet(self, worker: Worker) -> None:
        """A view came: dial those of it that are not linked."""
        node = self.nodes[worker.uid]
        for uid in list(node.missing):
            self._mend_soon(node, self.nodes[uid], self.now + 5)

    def frames_out(self, worker: Worker, send: Send) -> None:
        """A frame goes on its way."""
        if send.to not in self.nodes:
            return
        wire = self._wires.setdefault((worker.uid, send.to), Wire())
        at = wire.last = max(wire.last, self.now + self.delay() / 4)
        wire.frames.append((at, send, bytes(send.payload)))
        self.after(at - self.now, lambda: self._pump(worker.uid, send.to))

    def _pump(self, source: Uid, to: Uid) -> None:
        wire, node = self._wires.get((source, to)), self.nodes[to]
        worker = node.worker
        while wire and wire.frames and wire.frames[0][0] <= self.now and not wire.paused:
            if worker.hung or not node.worker_alive or worker.view is None:
                return
            if self.state(source, to) == "stalled":
                self.after(0.05, lambda: self._pump(source, to))
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
        for (source, to), wire in list(self._wires.items()):
            if to == worker.uid:
                wire.paused = False
                self.after(0.0, partial(self._pump, source, to))

    def purge(self, worker: Worker) -> None:
        """Frames not yet sent are forgotten; some may have been."""
        for (source, _), wire in self._wires.items():
            if source == worker.uid and wire.frames:
                keep = self.rng.randrange(len(wire.frames) + 1)
                wire.frames = deque(list(wire.frames)[:keep])


def _name(uid: Uid) -> str:
    return uid.rpartition("/")[0]
