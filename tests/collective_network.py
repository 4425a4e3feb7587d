"""Workers' exchanges on a network in memory, driven in a random order that a seed repeats.

Payloads are read from their sender's memory when they arrive, one half at the start and one at
the end of the transfer: whoever changes memory that somebody still needs is found out.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lightning_chaos.collective.actions import (
    AskCommit,
    Failed,
    Finished,
    Landing,
    Misbehaved,
    Purge,
    Resume,
    Send,
    Stable,
    Verdict,
)
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.collective.frames import FrameKind
from lightning_chaos.collective.layout import Layout
from lightning_chaos.collective.roots import Floats
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.planning.values import Tree
from lightning_chaos.protocol.flush import decide
from lightning_chaos.protocol.values import Decision, Member, OpId, Report, Uid, View, pair_of

News = tuple[View, Decision | None]


def member(name: str) -> Member:
    return Member(node=name, incarnation=1, host="127.0.0.1", port=1)


def view_of(epoch: int, names: Sequence[str], switch: int = 0, missing: Iterable[str] = ()) -> View:
    """Members of these names, and links but for those between the two names of each pair."""
    members = tuple(member(name) for name in names)
    pairs = sorted(pair_of(member(a).uid, member(b).uid) for a, b in missing)
    plan = mesh_plan([m.uid for m in members], pairs)
    return View("run", 0, epoch, members, (), switch, plan, tuple(pairs))


@dataclass(frozen=True)
class Step:
    """One operation as every member is to run it."""

    op: OpId
    floats: int | None
    """Size of the vector, None for an operation without."""
    buckets: tuple[tuple[int, int], ...] | None

    def label(self) -> str:
        return f"step {self.op}"

    def blob(self, uid: Uid) -> bytes:
        return f"{uid} at {self.op}".encode() * (1 + self.op.round % 3)

    def weight(self, uid: Uid) -> float:
        # Not whole numbers: their sums along different trees differ in the last bits.
        return float(self._rng(uid).integers(0, 5)) * 0.1

    def vector(self, uid: Uid) -> Floats | None:
        if self.floats is None:
            return None
        values = self._rng(uid).standard_normal(self.floats).astype(np.float32)
        return values * np.float32(self.weight(uid))

    def reference(self, view: View) -> Floats | None:
        """The weighted mean as the specification of sums along the trees of a plan says it."""
        if self.floats is None:
            return None
        vectors = [self.vector(uid) for uid in view.uids]
        weights = [self.weight(uid) for uid in view.uids]
        result = np.full(self.floats, np.nan, np.float32)
        buckets = self.buckets or ((0, 4 * self.floats),)
        for chunk in Layout.of(view.uids, view.plan, buckets).chunks[1:]:
            piece = slice(chunk.offset // 4, (chunk.offset + chunk.length) // 4)
            own = [(v[piece], w) for v, w in zip(vectors, weights, strict=True) if v is not None]
            total, weight = _up(chunk.tree, chunk.tree.root, own)
            result[piece] = total / np.float32(weight) if weight else 0
        return result

    def mean(self, view: View) -> npt.NDArray[np.float64]:
        """The weighted mean, in double precision and in no particular order."""
        vectors = [self.vector(uid) for uid in view.uids]
        total = np.sum([v for v in vectors if v is not None], axis=0, dtype=np.float64)
        return total / (sum(self.weight(uid) for uid in view.uids) or 1.0)

    def _rng(self, uid: Uid) -> np.random.Generator:
        return np.random.default_rng([self.op.round, self.op.k, *uid.encode()])


def _up(tree: Tree, rank: int, own: Sequence[tuple[Floats, float]]) -> tuple[Floats, float]:
    """What a member gives to its parent: its own and what its children give, in member order."""
    below = [child for child in range(len(own)) if tree.parent(child) == rank]
    given = [own[one] if one == rank else _up(tree, one, own) for one in sorted((rank, *below))]
    (vector, weight), *others = given
    for more, heavier in others:
        vector, weight = vector + more, weight + heavier
    return vector, weight


def program(rng: random.Random, rounds: int) -> list[Step]:
    """Rounds of a vector operation and up to two others."""
    steps = []
    for round_ in range(rounds):
        floats = rng.choice([1, 3, 17, 40])
        cuts = sorted(rng.randrange(floats + 1) * 4 for _ in range(rng.choice([1, 1, 2])))
        pieces = pairwise((0, *cuts, floats * 4))
        buckets = tuple((a, b - a) for a, b in pieces) if rng.random() < 0.7 else None
        steps.append(Step(OpId(round_, 0), floats, buckets))
        for k in range(1, rng.choice([1, 1, 2, 3])):
            size = rng.choice([None, None, 5])
            steps.append(Step(OpId(round_, k), size, None))
    return steps


@dataclass
class Node:
    """A worker: its exchange and a stand-in for training that runs a program.

    It gives the buckets of half its operations one by one, as backward does; what it has not
    given yet is NaN.
    """

    uid: Uid
    exchange: Exchange
    steps: list[Step]
    rng: random.Random
    at: int = 0
    """Next step to begin."""
    busy: bool = False
    known: int = 0
    """Highest epoch installed."""
    gate: int | None = None
    """No round from this one on may begin yet."""
    finished: dict[OpId, tuple[Finished, bytes]] = field(default_factory=dict)
    stable: list[OpId] = field(default_factory=list)
    report: Report | None = None
    vectors: list[Floats | None] = field(default_factory=lambda: [None, None])
    left: list[int] = field(default_factory=list)
    """Buckets of the open operation that are not given yet."""
    open: bool = False

    @property
    def done(self) -> bool:
        return self.at == len(self.steps) and not self.busy

    @property
    def may_begin(self) -> bool:
        if self.busy or self.at == len(self.steps):
            return False
        return self.gate is None or self.steps[self.at].op.round < self.gate

    def begin(self) -> None:
        step = self.steps[self.at]
        vector = step.vector(self.uid)
        if vector is not None:
            # Training reuses two buffers in turn: whoever still needs the older one loses.
            old = self.vectors.pop(0)
            if old is not None:
                old.fill(np.nan)
            self.vectors.append(vector)
        self.busy = True
        self.at += 1
        blob, weight = step.blob(self.uid), step.weight(self.uid)
        if vector is None or step.buckets is None or self.rng.random() < 0.5:
            self.exchange.begin(step.op, step.label(), blob, vector, weight, step.buckets)
            return
        vector.fill(np.nan)
        self.left, self.open = list(range(len(step.buckets))), True
        self.exchange.open(step.op, step.label(), vector, weight, step.buckets)

    def go_on(self) -> None:
        """Give one more bucket of the open operation, or end it, perhaps with some left."""
        step, vector = self.steps[self.at - 1], self.vectors[-1]
        whole = step.vector(self.uid)
        assert step.buckets is not None
        assert vector is not None
        assert whole is not None
        ends = not self.left or self.rng.random() < 0.2
        chosen = self.left if ends else [self.rng.choice(self.left)]
        for bucket in chosen:
            offset, length = step.buckets[bucket]
            piece = slice(offset // 4, (offset + length) // 4)
            vector[piece] = whole[piece]
        self.left = [bucket for bucket in self.left if bucket not in chosen]
        if ends:
            self.open = False
            self.exchange.close(step.blob(self.uid))
        else:
            self.exchange.give(chosen[0])


@dataclass
class Wire:
    """One direction between two nodes."""

    frames: deque[Send] = field(default_factory=deque)
    landing: Landing | Verdict | None = None
    """Of the first frame, when its transfer has begun."""
    paused: bool = False


class Network:
    """Some nodes and the wires between them."""

    def __init__(self, names: Sequence[str], rng: random.Random, steps: list[Step]) -> None:
        self.rng = rng
        self.steps = steps
        self.nodes: dict[Uid, Node] = {}
        self.wires: dict[tuple[Uid, Uid], Wire] = {}
        self.news: dict[int, News] = {}
        self.failed: list[Failed] = []
        self.accused: list[Misbehaved] = []
        self.asked: list[AskCommit] = []
        self.dead: list[Node] = []
        self.sent: Counter[FrameKind] = Counter()
        """Frames so far, by kind."""
        for name in names:
            self.add(name)

    def add(self, name: str) -> Node:
        uid = member(name).uid
        self.nodes[uid] = Node(uid, Exchange(uid, lambda: 0.0), self.steps, self.rng)
        return self.nodes[uid]

    def wire(self, source: Uid, to: Uid) -> Wire:
        return self.wires.setdefault((source, to), Wire())

    # ---- what can happen ---------------------------------------------------------------------

    def install(self, node: Node, epoch: int) -> None:
        view, decision = self.news[epoch]
        node.known = max(node.known, epoch)
        if decision is not None:
            node.report = None
            node.gate = None
        elif node.gate is not None and node.gate <= view.switch:
            node.gate = None
        node.exchange.install(view, decision)
        self.carry_out(node)

    def freeze(self, node: Node) -> None:
        node.exchange.freeze()
        self.carry_out(node)
        node.report = node.exchange.report(node.steps[max(node.at - 1, 0)].op.round)

    def kill(self, uid: Uid) -> None:
        """A node dies: what it sent arrives in part, what was sent to it is lost."""
        self.dead.append(self.nodes.pop(uid))
        for (source, to), wire in list(self.wires.items()):
            if to == uid:
                del self.wires[source, to]
            elif source == uid:
                begun = 1 if wire.landing is not None else 0
                keep = self.rng.randint(begun, len(wire.frames))
                while len(wire.frames) > keep:
                    wire.frames.pop()

    def cut(self, one: Uid, other: Uid) -> None:
        """The link between two nodes breaks; what was on it is lost, a new one takes its place."""
        self.wires.pop((one, other), None)
        self.wires.pop((other, one), None)

    def choices(self) -> list[Callable[[], None]]:
        """Everything that can happen next."""
        out: list[Callable[[], None]] = [
            lambda node=node: self._begin(node)  # type: ignore[misc]
            for node in self.nodes.values()
            if node.may_begin
        ]
        for node in self.nodes.values():
            if node.open:
                out.append(lambda node=node: self._go_on(node))  # type: ignore[misc]
        for (source, to), wire in self.wires.items():
            if to in self.nodes and wire.frames and not wire.paused:
                out.append(lambda s=source, t=to: self._transfer(s, t))  # type: ignore[misc]
        return out

    def step(self) -> bool:
        """Let one thing happen; False if nothing can."""
        choices = self.choices()
        if choices:
            self.rng.choice(choices)()
        return bool(choices)

    def run(self) -> None:
        """Until nothing can happen any more."""
        while self.step():
            pass

    def _begin(self, node: Node) -> None:
        node.begin()
        self.carry_out(node)

    def _go_on(self, node: Node) -> None:
        node.go_on()
        self.carry_out(node)

    def _transfer(self, source: Uid, to: Uid) -> None:
        wire, node = self.wire(source, to), self.nodes[to]
        send = wire.frames[0]
        half = len(send.payload) // 2
        if wire.landing is None:
            verdict = node.exchange.place(source, send.frame)
            if verdict is Verdict.PAUSE:
                wire.paused = True
            else:
                wire.landing = verdict
                if isinstance(verdict, Landing) and verdict.memory is not None:
                    assert len(verdict.memory) == len(send.payload)
                    verdict.memory[:half] = send.payload[:half]
        else:
            wire.frames.popleft()
            landing, wire.landing = wire.landing, None
            if isinstance(landing, Landing):
                if landing.memory is not None:
                    landing.memory[half:] = send.payload[half:]
                node.exchange.complete(source, send.frame, landing)
        self.carry_out(node)

    # ---- actions -----------------------------------------------------------------------------

    def carry_out(self, node: Node) -> None:
        for action in node.exchange.actions():
            match action:
                case Send(to=to, frame=frame):
                    assert self.news[frame.epoch][0].joins(node.uid, to)
                    if to in self.nodes:
                        self.wire(node.uid, to).frames.append(action)
                        self.sent[frame.kind] += 1
                case Finished():
                    assert action.op == node.steps[node.at - 1].op
                    assert action.op not in node.finished
                    result = b"" if action.result is None else action.result.tobytes()
                    node.finished[action.op] = (action, result)
                    node.busy = False
                case Stable(op=op):
                    node.stable.append(op)
                case Resume():
                    for (_, to), wire in self.wires.items():
                        if to == node.uid:
                            wire.paused = False
                case Purge():
                    for (source, _), wire in self.wires.items():
                        if source == node.uid:
                            begun = 1 if wire.landing is not None else 0
                            wire.frames = deque(list(wire.frames)[:begun])
                case AskCommit():
                    self.asked.append(action)
                case Misbehaved():
                    self.accused.append(action)
                case Failed():
                    self.failed.append(action)

    # ---- changes of the view -----------------------------------------------------------------

    def decide(self, epoch: int, uids: Sequence[Uid], missing: Iterable[str] = ()) -> Decision:
        """All of these are frozen: a view of just them, not installed yet anywhere."""
        reports = {uid: self.nodes[uid].report for uid in uids}
        known = {uid: report for uid, report in reports.items() if report is not None}
        assert len(known) == len(uids)
        view = view_of(epoch, [uid.split("/")[0] for uid in uids], missing=missing)
        decision = decide(known, view)
        self.news[epoch] = (view, decision)
        return decision

    # ---- what must hold ----------------------------------------------------------------------

    def check(self) -> None:
        """Survivors have all results, the same ones, and these are what they should be."""
        assert not self.accused
        assert not self.failed
        first = next(iter(self.nodes.values()))
        for node in self.nodes.values():
            assert node.done, f"{node.uid} stands at {node.steps[node.at - 1].op}"
            assert node.stable == list(node.finished)[:-1]
            for op, (finished, result) in node.finished.items():
                if op not in first.finished:
                    continue
                theirs, expected = first.finished[op]
                assert result == expected
                assert finished.view == theirs.view
                assert finished.blobs == theirs.blobs
        for finished, result in first.finished.values():
            self.check_one(finished, result)
        for node in self.dead:
            for op in node.stable:
                assert node.finished[op][1] == first.finished[op][1]

    def check_one(self, finished: Finished, result: bytes) -> None:
        step = next(step for step in self.steps if step.op == finished.op)
        view = finished.view
        assert finished.blobs == tuple(step.blob(uid) for uid in view.uids)
        assert finished.weights == tuple(step.weight(uid) for uid in view.uids)
        assert finished.total == sum(finished.weights)
        reference = step.reference(view)
        assert result == (b"" if reference is None else reference.tobytes())
        if reference is not None:
            np.testing.assert_allclose(reference, step.mean(view), rtol=1e-5, atol=1e-5)
