"""Several peers and their workers in virtual time; processes that stop, die and come back.

Everything random comes from one generator, so a seed repeats a run exactly.
"""

from __future__ import annotations

import random
from functools import partial

from protocol_checks import Checks
from protocol_network import Network, Node
from protocol_worker import Worker
from transcript import show

from lightning_chaos.protocol import events, local
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.standing import Role
from lightning_chaos.protocol.values import Member, OpId, Uid, View

TICK_S = 0.1
WORKER_TIMEOUT_S = 6.0
LINGER_S = 4.0


class World(Network):
    """The machines, the network between them and the clock."""

    def __init__(self, seed: int, names: str, *, same_machine: bool, story: list[str]) -> None:
        super().__init__(random.Random(seed), story, same_machine=same_machine)
        self.names = names
        self.stop_asked = False
        self.checks = Checks(self)
        self._lock: Node | None = None

    # ---- nodes -----------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """A new incarnation of that node, unless one lives."""
        if self.live(name) is not None:
            return
        serial = next(self._serial)
        machine = "m" if self.same_machine else f"m{name}"
        me = Member(name, serial, "127.0.0.1", serial, machine, serial)
        peer = Membership(
            me, run="r", timeout_s=1.0, worker_timeout_s=WORKER_TIMEOUT_S, linger_s=LINGER_S
        )
        node = Node(me, peer, Worker(me, self))
        self.nodes[me.uid] = node
        self.tell(f"{me.uid} starts")
        self.after(self.uniform(0, TICK_S), lambda: self._tick(node))

    def live(self, name: str) -> Node | None:
        """The newest incarnation of that node if any part of it lives."""
        mine = [n for n in self.nodes.values() if n.me.node == name]
        node = mine[-1] if mine else None
        return node if node and (node.peer_alive or node.worker_alive) else None

    def _tick(self, node: Node) -> None:
        if not node.peer_alive:
            return
        self.after(TICK_S * self.uniform(0.8, 1.2), lambda: self._tick(node))
        if self.now >= node.paused_until:
            self._dial(node)
            self._search(node)
            self.give(node, events.Tick())

    # ---- search ----------------------------------------------------------------------------

    def _search(self, node: Node) -> None:
        """Under the lock, reach all who are listed, then say that the search is over."""
        if not node.peer.searching or self.now < node.search_at:
            return
        if self._lock is not None and self._lock is not node:
            holder = self._lock
            if holder.peer_alive and holder.peer.searching:
                return
        self._lock = node
        node.search_at = self.now + 1.0
        listed = [
            n
            for n in self.nodes.values()
            if n is not node and n.peer_alive and n.peer.role not in (Role.OUT, Role.SEARCHING)
        ]
        for other in listed:
            self._connect(node, other.uid)
        self.after(self.uniform(0.2, 0.6), lambda: self._searched(node, bool(listed)))

    def _searched(self, node: Node, listed: bool) -> None:
        if node.peer_alive and node.peer.searching and bool(node.up) == listed:
            self.give(node, events.Searched(exclusive=True))

    # ---- peers -----------------------------------------------------------------------------

    def give(self, node: Node, event: events.Event) -> None:
        """An event for a peer; a stopped process takes it later."""
        node.mail.append(event)
        if node.paused_until > self.now:
            return
        while node.mail and node.peer_alive:
            for action in node.peer.step(self.now, node.mail.popleft()):
                self._act(node, action)
            self.checks.after_step(node)

    def pause_peer(self, node: Node, seconds: float) -> None:
        """SIGSTOP for so long."""
        node.paused_until = self.now + seconds
        self.after(seconds + 0.001, lambda: self.give(node, events.Tick()))

    def _act(self, node: Node, action: events.Action) -> None:
        match action:
            case events.Send(to=to, message=message):
                self._send(node, to, message)
            case events.Connect(member=member):
                if member.uid not in node.wanted and member.uid in self.nodes:
                    node.wanted[member.uid] = self.now
            case events.Hangup(uid=uid):
                node.wanted.pop(uid, None)
                node.up.discard(uid)
                self._break_when_heard(node.uid, uid, polite=True)
            case events.Tell(message=message):
                if isinstance(message, local.Install):
                    self.checks.installed(node, message)
                if isinstance(message, local.Standing) and not message.newcomer:
                    self.checks.founded(node)
                if not isinstance(message, local.Permit | local.Waiting):
                    self.tell(f"{node.uid} : worker {show(message)}")
                at = node.to_worker_at = max(node.to_worker_at, self.now + self._near())
                self.after(at - self.now, lambda: self._to_worker(node, message))
            case events.Log(text=text):
                self.tell(f"{node.uid} : {text}")
            case events.Quit():
                self._end_peer(node, polite=True)

    def _near(self) -> float:
        return self.rng.choice((0.0005, 0.002, 0.01))

    def _to_worker(self, node: Node, message: local.Local) -> None:
        if node.worker_alive:
            node.worker.hear(message)

    def tell_peer(self, worker: Worker, message: local.AnyLocal) -> None:
        """From a worker to its peer."""
        node = self.nodes[worker.uid]
        if not isinstance(message, local.Begun | local.Pulling):
            self.tell(f"{node.uid} : says {show(message)}")
        at = node.to_peer_at = max(node.to_peer_at, self.now + self._near())
        self.after(at - self.now, lambda: self._to_peer(node, message))

    def _to_peer(self, node: Node, message: local.AnyLocal) -> None:
        if node.peer_alive:
            self.give(node, events.FromWorker(message))

    # ---- death -----------------------------------------------------------------------------

    def _end_peer(self, node: Node, *, polite: bool = False) -> None:
        if node.peer_alive:
            node.peer_alive = False
            self.tell(f"{node.uid}'s peer ends")
            for pair in [p for p in self._conns if node.uid in p]:
                (other,) = pair - {node.uid}
                self._break_when_heard(node.uid, other, polite=polite)

    def _break_when_heard(self, dead: Uid, other: Uid, *, polite: bool = False) -> None:
        """A stalled path lets no reset through; a polite end sends what is queued first."""
        conn = self._conns.get(frozenset((dead, other)))
        queued = polite and conn is not None and conn.last[other] > self.now
        if self.state(dead, other) == "stalled" or queued:
            self.after(0.01, lambda: self._break_when_heard(dead, other, polite=polite))
        else:
            self.break_conn(dead, other)

    def kill_peer(self, node: Node) -> None:
        """SIGKILL; the worker, if it lives, says so on the data links and comes back."""
        self._end_peer(node)
        worker = node.worker
        if node.worker_alive and not worker.apart and not worker.all_done and worker.view:
            for member in worker.view.members:
                other = self.nodes.get(member.uid)
                if other and other is not node and not self.state(node.uid, member.uid):
                    word = local.Word(node.uid, "its peer is gone")
                    self.after(self.delay(), partial(self._word, other, word))
        worker.part("its peer is gone")

    def _word(self, node: Node, word: local.Word) -> None:
        if node.worker_alive and not node.worker.apart:
            self.tell_peer(node.worker, word)

    def kill_worker(self, node: Node) -> None:
        """SIGKILL; the peer sees it."""
        self._end_worker(node)
        at = self.delay()
        self.after(at, lambda: self.give(node, events.WorkerGone("the worker was killed")))

    def _end_worker(self, node: Node, *, polite: bool = False) -> None:
        node.worker_alive = False
        node.worker.ended = True
        self.tell(f"{node.uid}'s worker ends")
        for other in list(self.nodes.values()):
            if other is not node and other.worker_alive:
                self.break_data(node, other, polite=polite)

    def end(self, worker: Worker) -> None:
        """The worker goes as planned."""
        node = self.nodes[worker.uid]
        if node.worker_alive:
            self._end_worker(node, polite=True)
            self.after(self.delay(), lambda: self.give(node, events.WorkerGone("it goes")))

    def come_back(self, worker: Worker) -> None:
        """Out of the run: a new peer, a new incarnation."""
        node = self.nodes[worker.uid]
        if not node.worker_alive:
            return
        if node.worker.hung:
            node.worker.hung_until = 0.0
        self._end_worker(node)
        self.after(0.05, lambda: self.give(node, events.WorkerGone("out of the run")))
        self.after(self.uniform(0.2, 0.6), lambda: self._again(node))

    def _again(self, node: Node) -> None:
        if self.live(node.me.node) in (None, node):
            self._end_peer(node)
            self.start(node.me.node)

    # ---- what workers see of each other ----------------------------------------------------

    def donors(self, worker: Worker, view: View) -> list[Worker]:
        """Members of that view which hold, offer the same image and can be reached."""
        nodes = [self.nodes[uid] for uid in view.uids if self.reaches(worker, uid)]
        holding = [n.worker for n in nodes if n.worker.holds]
        same = [w for w in holding if w.hold_epoch == worker.hold_epoch]
        self.rng.shuffle(same)
        return same

    def let_go(self, worker: Worker, view: View) -> bool:
        """All others of the view work without this leaver."""
        others = [self.nodes[uid] for uid in view.uids if uid != worker.uid]
        return all(not n.worker_alive or n.worker.begun >= view.switch for n in others)

    def stable(self, worker: Worker, op: OpId) -> None:
        self.checks.stable(worker, op)
