"""Plays a transcript: several state machines, a wire that can be cut, workers that obey.

A transcript is text: a command per line, what it caused indented below it.  Run the tests with
``REWRITE=1`` to write what really happens, then read it as prose before it is committed.
"""

from __future__ import annotations

from collections import deque

import msgspec

from lightning_chaos.planning.reconsider import reconsider
from lightning_chaos.protocol import local
from lightning_chaos.protocol.events import (
    Action,
    Event,
    FromWorker,
    Heard,
    Level,
    Linked,
    Log,
    ProcessGone,
    Quit,
    Replan,
    Replanned,
    Searched,
    Send,
    Tell,
    Tick,
    Unlinked,
    WorkerGone,
)
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.messages import AnyMessage, Carry, Status, decode, encode
from lightning_chaos.protocol.readings import Reading
from lightning_chaos.protocol.values import Member, OpId, Past, Report
from lightning_chaos.testing.simulator.show import kin, show, without

QUIET = (Status, local.Permit, local.Waiting, local.NoLink, local.RoundTrips)


class Town:
    """Nodes, the messages under way between them, and the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.nodes: dict[str, Membership] = {}
        self.uids: dict[str, str] = {}
        self.reports: dict[str, Report] = {}
        self.permits: dict[str, int] = {}
        self.wire: deque[tuple[str, str, bytes]] = deque()
        self.cut: set[frozenset[str]] = set()
        self.muted: set[tuple[str, str]] = set()
        self.held: set[str] = set()
        self.asleep: dict[str, list[Event]] = {}
        self.out: list[str] = []
        self.alone = False
        """All nodes have ``quorum="any"``."""

    # ---- commands --------------------------------------------------------------------------

    def play(self, line: str) -> list[str]:
        """Run one command; returns what it caused."""
        self.out = []
        verb, *words = line.split()
        options = dict(w.split("=", 1) for w in words if "=" in w)
        names = [w for w in words if "=" not in w]
        getattr(self, f"do_{verb.replace('-', '_')}")(*names, **options)
        return self.out

    def do_node(
        self,
        *names: str,
        min: str = "1",
        past: str = "-1.0",
        quorum: str = "",
        start: str = "600",
        quorum_timeout: str = "3600",
    ) -> None:
        """``past=1.500``: it brings a checkpoint of generation 1, of 500 samples."""
        self.alone = self.alone or quorum == "any"
        generation, samples = map(int, past.split("."))
        for name in names:
            member = Member(name, 1, "127.0.0.1", 1, past=Past(generation, samples))
            self.nodes[name] = Membership(
                member,
                run="r",
                min_members=int(min),
                generation=generation + 1,
                alone=self.alone,
                start_timeout_s=float(start),
                quorum_timeout_s=float(quorum_timeout),
            )
            self.uids[name] = member.uid
            self.reports[name] = report()

    def do_cluster(self, *names: str, **options: str) -> None:
        """A cluster of these members, oldest first, that has begun no round; nothing is shown."""
        for i, name in enumerate(names):
            self.do_node(name, **options)
            self.do_link(*names[: i + 1])
            self.do_search(name, exclusive="yes")
            self.do_deliver()
            self.do_seat(name)
            self.do_deliver()
            if i > 0:
                self.do_pulled(name)
            self.do_deliver()
            assert self.nodes[name].role.value == "member", f"{name} is not in"
        self.out = []

    def do_restart(self, name: str) -> None:
        incarnation = int(self.uids[name].rpartition("/")[2], 16) + 1
        member = Member(name, incarnation, "127.0.0.1", 1)
        self.nodes[name] = Membership(member, run="r", alone=self.alone)
        self.uids[name] = member.uid
        self.reports[name] = report()

    def do_link(self, *names: str) -> None:
        for a in names:
            for b in names:
                if a != b:
                    self.cut.discard(frozenset((a, b)))
                    self.give(a, Linked(self.nodes[b].me))

    def do_search(self, *names: str, exclusive: str = "no", problem: str = "") -> None:
        for name in names:
            self.give(name, Searched(exclusive == "yes", problem))

    def do_deliver(self, drop: str = "", until: str = "") -> None:
        """All messages under way arrive, and what they cause.

        ``drop=Commit:b`` loses some; ``until=Ack`` stops before the first of that kind.
        """
        kind, _, target = drop.partition(":")
        for _ in range(10_000):
            if not self.wire or type(decode(self.wire[0][2])).__name__ == until:
                return
            sender, to, data = self.wire.popleft()
            message = decode(data)
            lost = frozenset((sender, to)) in self.cut or to not in self.nodes
            lost = lost or (sender, to) in self.muted
            if lost or (type(message).__name__ == kind and target in ("", to)):
                continue
            if not isinstance(content(message), QUIET):
                self.out.append(f"{sender} > {to}  {show(message)}")
            self.give(to, Heard(self.nodes[sender].me.uid, message))
        raise AssertionError("the talk does not end")

    def do_seat(self, *names: str, **settings: str) -> None:
        for name in names:
            fingerprint = tuple(settings.items()) or (("model", "m"),)
            self.worker(name, local.AskSeat(fingerprint))

    def do_begin(self, round_: str, *names: str) -> None:
        """A round begins; each had ten samples."""
        for name in names:
            old = self.reports[name]
            self.reports[name] = msgspec.structs.replace(old, begun_round=int(round_))
            self.worker(name, local.Begun(int(round_), 10 * int(round_)))

    def do_holds(self, name: str, finished: str, current: str = "", held: str = "") -> None:
        """What the worker will report: ``holds a 4.0 current=5.0 held=0,1``."""
        self.reports[name] = Report(
            op(finished),
            True,
            op(current) if current else None,
            tuple(int(c) for c in held.split(",") if c),
            3,
            self.nodes[name].view.uids if self.nodes[name].view else (),
            self.reports[name].begun_round,
        )

    def do_pulls(self, name: str, bytes_: str, total: str) -> None:
        self.worker(name, local.Pulling(int(bytes_), int(total)))

    def do_pulled(self, name: str) -> None:
        view = self.nodes[name].view
        assert view is not None
        last = OpId(view.switch - 1, 0)
        self.reports[name] = Report(last, False, None, (), 0, (), view.switch - 1)
        self.worker(name, local.Pulled(view.epoch, view.switch))

    def do_slow_to_freeze(self, name: str) -> None:
        self.held.add(name)

    def do_freezes(self, name: str) -> None:
        self.held.discard(name)
        freezing = self.nodes[name]._standing.acceptor.freezing
        assert freezing is not None
        self.worker(name, local.Frozen(freezing.proposal.ballot, self.reports[name]))

    def do_leave(self, name: str) -> None:
        self.worker(name, local.Leaving())

    def do_done(self, round_: str, *names: str) -> None:
        for name in names:
            self.worker(name, local.Done(int(round_)))

    def do_word(self, name: str, about: str) -> None:
        self.worker(name, local.Word(self.uids[about], "its peer is gone"))

    def do_broken(self, name: str, other: str, mended: str = "no") -> None:
        said = local.Broken(self.nodes[other].me.uid, "data link reset", mended == "yes")
        self.worker(name, said)

    def do_restored(self, name: str, other: str) -> None:
        self.worker(name, local.Restored(self.nodes[other].me.uid))

    def do_worker_gone(self, name: str) -> None:
        self.give(name, WorkerGone("the worker ended"))

    def do_kill(self, name: str, seen: str = "reset") -> None:
        """The peer dies; ``seen=gone`` also on this machine, ``seen=silence``: no word of it."""
        node = self.nodes.pop(name)
        self.wire = deque(m for m in self.wire if name not in m[:2])
        if seen != "silence":
            for other in list(self.nodes):
                self.give(other, Unlinked(node.me.uid, "connection refused"))
                if seen == "gone":
                    self.give(other, ProcessGone(node.me.uid))

    def do_part(self, some: str, others: str) -> None:
        """All links between these and those are reset: ``part a,b c``."""
        for a in some.split(","):
            for b in others.split(","):
                self.do_cut(a, b)

    def do_heal(self, some: str, others: str) -> None:
        """All links between these and those work again."""
        for a in some.split(","):
            for b in others.split(","):
                self.do_link(a, b)

    def do_cut(self, a: str, b: str) -> None:
        self.cut.add(frozenset((a, b)))
        self.give(a, Unlinked(self.nodes[b].me.uid, "connection reset"))
        self.give(b, Unlinked(self.nodes[a].me.uid, "connection reset"))

    def do_mute(self, a: str, b: str) -> None:
        """What a sends does not reach b any more, and nothing is reset."""
        self.muted.add((a, b))

    def do_unmute(self, a: str, b: str) -> None:
        self.muted.discard((a, b))

    def do_sleep(self, name: str) -> None:
        """The peer process is stopped: what happens to it has to wait."""
        self.asleep[name] = []

    def do_wake(self, name: str) -> None:
        for event in self.asleep.pop(name):
            self.give(name, event)

    def do_measures(self, name: str, **mbit: str) -> None:
        """What comes to its worker from each, which reduces a vector of 10 MB."""
        rates = {self.uids[other]: Reading(float(rate) / 8e-6) for other, rate in mbit.items()}
        self.worker(name, local.Measured(rates, 10_000_000))

    def do_wait(self, seconds: str) -> None:
        for _ in range(round(float(seconds) / 0.05)):
            self.now += 0.05
            for name in list(self.nodes):
                self.give(name, Tick())
            quiet, self.out = self.out, []
            self.do_deliver()
            self.out = quiet + self.out

    def do_permits(self, *names: str) -> None:
        for name in names:
            self.out.append(f"{name}: rounds up to {self.permits.get(name, -1)}")

    def do_status(self, *names: str) -> None:
        """What a visitor is told that they wait for."""
        for name in names:
            waiting = self.nodes[name]._standing.status().waiting
            self.out.append(f"{name}: {waiting or 'waits for nothing'}")

    def do_generation(self, name: str) -> None:
        view = self.nodes[name].view
        self.out.append(f"{name}: generation {view.generation if view else '-'}")

    def do_views(self) -> None:
        for name, node in self.nodes.items():
            view = node.view
            names = ",".join(m.node for m in view.members) if view else "-"
            links = "".join(f", {text}" for text in (*without(view), *kin(view))) if view else ""
            self.out.append(
                f"{name}: {node.role.value}, epoch {view.epoch if view else 0}, {names}{links}"
            )

    # ---- machinery -------------------------------------------------------------------------

    def worker(self, name: str, message: local.Local) -> None:
        self.give(name, FromWorker(message))  # type: ignore[arg-type]

    def give(self, name: str, event: Event) -> None:
        if name in self.asleep:
            if not isinstance(event, Tick):
                self.asleep[name].append(event)
            return
        for action in self.nodes[name].step(self.now, event):
            self.act(name, action)

    def act(self, name: str, action: Action) -> None:
        match action:
            case Send(to=to, message=message):
                self.wire.append((name, to.partition("/")[0], encode(message)))
            case Tell(message=message):
                if isinstance(message, local.Permit):
                    self.permits[name] = message.upto
                if not isinstance(message, QUIET):
                    self.out.append(f"{name} : worker {show(message)}")
                if isinstance(message, local.Freeze) and name not in self.held:
                    self.worker(name, local.Frozen(message.ballot, self.reports[name]))
            case Log(level=Level.INFO, text=text):
                self.out.append(f"{name} : {text}")
            case Replan(graph=graph, present=plan, total_bytes=size):
                self.give(name, Replanned(graph, *reconsider(plan, graph, size)))
            case Quit(reason=reason):
                self.out.append(f"{name} : quits, {reason}")
            case _:
                pass


def content(message: AnyMessage) -> AnyMessage:
    """What is passed on, if something is."""
    return decode(message.content) if isinstance(message, Carry) else message


def op(text: str) -> OpId:
    """``4.0`` as an operation."""
    round_, k = text.split(".")
    return OpId(int(round_), int(k))


def report() -> Report:
    """A worker that has done nothing yet."""
    return Report(OpId(-1, 0), False, None, (), 0, (), -1)
