"""Several nodes in virtual time; processes that stop, die and come back.

Everything random comes from one generator, so a case repeats exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

from lightning_chaos.planning.reconsider import reconsider
from lightning_chaos.protocol import events, local
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.values import Member, View
from lightning_chaos.testing.simulator.case import Case
from lightning_chaos.testing.simulator.clock import Clock
from lightning_chaos.testing.simulator.control import Control
from lightning_chaos.testing.simulator.invariants import Invariants
from lightning_chaos.testing.simulator.lineages import Lineages
from lightning_chaos.testing.simulator.node import Node, Nodes
from lightning_chaos.testing.simulator.outcome import Violation
from lightning_chaos.testing.simulator.paths import Paths
from lightning_chaos.testing.simulator.pull import pull
from lightning_chaos.testing.simulator.search import Search
from lightning_chaos.testing.simulator.troubles import Troubles
from lightning_chaos.testing.simulator.wires import Wires
from lightning_chaos.testing.simulator.worker import WORKER_TIMEOUTS, Worker

TICKS = 4
"""In one timeout; with each a heartbeat is due."""
LINGER_S = 1.0
PLANNING_S = 0.05
"""How long it takes to work a plan out."""
QUIET = (local.Permit, local.Waiting, local.NoLink, local.Begun, local.Pulling)
"""Too frequent for the story."""


class World:
    """The machines, the network between them and the clock.

    Args:
        case: what it is made of; its faults strike only if they are set up.
        story: takes a line for everything that happens; None if nobody reads it.
    """

    def __init__(self, case: Case, story: list[str] | None = None) -> None:
        self.case = case
        self.names = case.nodes
        self.same_machine = case.same_machine
        self.clock = Clock(case.seed, len(self.names), story)
        self.paths = Paths(self.clock, case.unlinked, case.delay_s)
        self.troubles = Troubles(self.clock)
        self.nodes = Nodes()
        self.control = Control(
            self.clock, self.paths, self.nodes, same_machine=case.same_machine, give=self.give
        )
        self._search = Search(self.clock, self.nodes, self.control, self.give)
        self.wires = Wires(self.clock, self.paths, self.nodes)
        self.invariants = Lineages(self) if case.alone else Invariants(self)
        self.control.taps.append(self.invariants.seats.sent)
        self.stop_asked = False
        self.coming_back: set[str] = set()  # nodes, as newcomers
        self._serial = itertools.count(1)

    # ---- steering --------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """A new incarnation of that node, unless one lives."""
        if self.live(name) is None:
            node = self.new(name)
            self.clock.tell(node.uid, "starts")

    def new(self, name: str) -> Node:
        """An incarnation of that node, which begins to tick."""
        serial = next(self._serial)
        machine = "m" if self.same_machine else f"m{name}"
        me = Member(name, serial, "127.0.0.1", serial, machine, serial)
        peer = Membership(
            me,
            run="r",
            timeout_s=self.case.timeout_s,
            worker_timeout_s=WORKER_TIMEOUTS * self.case.timeout_s,
            linger_s=LINGER_S,
            alone=self.case.alone,
        )
        rng, skew = self.clock.rng, self.case.skew
        node = Node(me, peer, Worker(me, self))
        if skew:
            node.rate, node.ahead = rng.uniform(1 - skew, 1 + skew), rng.uniform(0, 1000)
        self.nodes.add(node)
        self.clock.after(rng.uniform(0, self._tick_s(node)), lambda: self._tick(node))
        return node

    def _tick_s(self, node: Node) -> float:
        return self.case.timeout_s / TICKS / node.rate

    def heal(self) -> None:
        """Everything works from now on."""
        self.paths.open_all()
        self.troubles.over()

    def live(self, name: str) -> Node | None:
        """The newest incarnation of that node if any part of it lives."""
        node = self.nodes.newest(name)
        return node if node and node.alive else None

    def until(self, condition: Callable[[], bool], what: str, bound_s: float = 20.0) -> None:
        """Let time pass until something is so.

        Args:
            condition: looked at every millisecond.
            what: it is, for people.
            bound_s: how long that may take, virtual seconds.

        Raises:
            Violation: it does not come to that.
        """
        end = self.clock.now + bound_s
        while not condition():
            if self.clock.now > end:
                raise Violation(f"within {bound_s:g} s it does not come to {what}")
            self.clock.run_until(self.clock.now + 0.001)

    def _tick(self, node: Node) -> None:
        if not node.peer_alive:
            return
        next_s = self._tick_s(node) * self.clock.rng.uniform(0.8, 1.2)
        self.clock.after(next_s, lambda: self._tick(node))
        if node.worker_alive:
            node.worker.check_late()
        if self.clock.now >= node.paused_until:
            self.control.dial(node)
            self.control.seek(node)
            self._search.look(node)
            self.give(node, events.Tick())

    # ---- peers -----------------------------------------------------------------------------

    def give(self, node: Node, event: events.Event) -> None:
        """An event for a peer; a stopped process takes it later."""
        node.mail.append(event)
        if node.paused_until > self.clock.now:
            return
        while node.mail and node.peer_alive:
            for action in node.peer.step(node.time(self.clock.now), node.mail.popleft()):
                self._act(node, action)
            self.invariants.after_step(node)

    def pause_peer(self, node: Node, seconds: float) -> None:
        """SIGSTOP for so long."""
        node.paused_until = self.clock.now + seconds
        self.troubles.note(node.name, seconds=seconds)
        self.clock.after(seconds + 0.001, lambda: self.give(node, events.Tick(late_s=seconds)))

    def _act(self, node: Node, action: events.Action) -> None:
        match action:
            case events.Send(to=to, message=message):
                self.control.send(node, to, message)
            case events.Connect(member=member):
                if member.uid not in node.wanted and member.uid in self.nodes:
                    node.wanted[member.uid] = self.clock.now
            case events.Hangup(uid=uid):
                self.control.hang_up(node, uid)
            case events.Redial(uid=uid):
                self.control.break_(node.uid, uid)
            case events.Tell(message=message):
                self._tell_worker(node, message)
            case events.Log(text=text):
                self.clock.tell(node.uid, ":", text)
            case events.Replan(graph=graph, present=plan, total_bytes=size):
                answer = events.Replanned(graph, *reconsider(plan, graph, size))
                self.clock.after(PLANNING_S, partial(self.give, node, answer))
            case events.Quit():
                self._end_peer(node, polite=True)

    def _tell_worker(self, node: Node, message: local.Local) -> None:
        if isinstance(message, local.Install):
            self.invariants.installed(node, message)
        if isinstance(message, local.Removed) and isinstance(self.invariants, Lineages):
            self.invariants.dropped_out(node, message)
        if isinstance(message, local.Standing) and not message.newcomer:
            self.invariants.founded(node)
        if not isinstance(message, QUIET):
            self.clock.tell(node.uid, ": worker", message)
        at = node.to_worker_at = max(node.to_worker_at, self.clock.now + self.paths.near_s())
        self.clock.after(at - self.clock.now, partial(self._to_worker, node, message))

    def _to_worker(self, node: Node, message: local.Local) -> None:
        if node.worker_alive:
            node.worker.hear(message)

    def to_peer(self, worker: Worker, message: local.AnyLocal) -> None:
        """From a worker to its peer."""
        node = self.nodes[worker.uid]
        if not isinstance(message, QUIET):
            self.clock.tell(node.uid, ": says", message)
        at = node.to_peer_at = max(node.to_peer_at, self.clock.now + self.paths.near_s())
        self.clock.after(at - self.clock.now, partial(self._to_peer, node, message))

    def _to_peer(self, node: Node, message: local.AnyLocal) -> None:
        if node.peer_alive:
            self.give(node, events.FromWorker(message))

    # ---- death -----------------------------------------------------------------------------

    def _end_peer(self, node: Node, *, polite: bool = False) -> None:
        if node.peer_alive:
            node.peer_alive = False
            self.clock.tell(f"{node.uid}'s peer ends")
            self.control.end(node, polite=polite)

    def kill_peer(self, node: Node) -> None:
        """SIGKILL; the worker, if it lives, says so on the data links and comes back."""
        self._end_peer(node)
        worker = node.worker
        if node.worker_alive and worker.active and not worker.all_done and worker.view:
            word = local.Word(node.uid, "its peer is gone")
            for member in worker.view.members:
                other = self.nodes[member.uid]
                if other is not node and not self.paths.data_state(node.name, other.name):
                    self.clock.after(self.paths.delay(node.name), partial(self._word, other, word))
        worker.part("its peer is gone")

    def _word(self, node: Node, word: local.Word) -> None:
        if node.worker_alive:
            node.worker.say(word)

    def kill_worker(self, node: Node) -> None:
        """SIGKILL; the peer sees it."""
        self._end_worker(node)
        gone = events.WorkerGone("the worker was killed")
        self.clock.after(self.paths.delay(node.name), lambda: self.give(node, gone))

    def _end_worker(self, node: Node, *, polite: bool = False) -> None:
        node.worker_alive = False
        node.worker.ended = True
        self.clock.tell(f"{node.uid}'s worker ends")
        for other in self.nodes:
            if other is not node and other.worker_alive:
                self.wires.break_(node, other, polite=polite)

    def end(self, worker: Worker) -> None:
        """The worker goes as planned."""
        node = self.nodes[worker.uid]
        if node.worker_alive:
            self._end_worker(node, polite=True)
            gone = events.WorkerGone("it goes")
            self.clock.after(self.paths.delay(node.name), lambda: self.give(node, gone))

    def come_back(self, worker: Worker) -> None:
        """Out of the run: a new peer, a new incarnation."""
        node = self.nodes[worker.uid]
        if not node.worker_alive:
            return
        self._end_worker(node)
        self.coming_back.add(node.name)
        self.clock.after(0.05, lambda: self.give(node, events.WorkerGone("out of the run")))
        self.clock.after(self.clock.rng.uniform(0.2, 0.6), lambda: self._again(node))

    def _again(self, node: Node) -> None:
        self.coming_back.discard(node.name)
        if self.live(node.name) in (None, node):
            self._end_peer(node)
            self.start(node.name)

    # ---- what workers do with each other ---------------------------------------------------

    def learn(self, worker: Worker) -> None:
        """A learner has its place: it pulls."""
        self.clock.after(0.02, lambda: pull(self, worker))

    def lets_go(self, worker: Worker, view: View) -> bool:
        """All others of the view work without this leaver."""
        others = [self.nodes[uid] for uid in view.uids if uid != worker.uid]
        return all(not n.worker_alive or n.worker.begun >= view.switch for n in others)
