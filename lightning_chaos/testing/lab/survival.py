"""Whether a run must survive a schedule: told before the run, by a model of its own.

The model knows who runs, who is stopped, which links carry, and who is a member; it counts with
the protocol's own rule (``protocol.quorum``).  It asks, after every fault, whether there is a
side (members that run, joined by paths of links) which may agree on the next view.  It is
careful where it cannot know:

* faults closer together than ``settle`` meet the same view: its members all count still;
* a stopped process never answers, however soon it goes on;
* a link counts as lost whichever way it is cut, and however.

On one host the death of a process is known for sure.  Where each node has its own, one that is
killed whole just falls silent, and its vote counts as missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lightning_chaos.errors import ConfigError
from lightning_chaos.protocol.quorum import may_commit
from lightning_chaos.testing.lab.conditions import Cut
from lightning_chaos.testing.lab.faults import (
    Cont,
    CutLink,
    CutOneWay,
    Deed,
    Fault,
    Heal,
    Join,
    Kill,
    Leave,
    Part,
    Schedule,
    Stop,
    Throttle,
)

SETTLE = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a run must survive, and if not, what it need not."""

    survives: bool
    reason: str
    """For people: the fault after which no side has a quorum, and why; '' if it survives."""
    members: tuple[str, ...]
    """Of the last view, oldest first."""


def survivable(
    schedule: Schedule, nodes: Sequence[str], settle: float = SETTLE, *, one_host: bool = True
) -> Verdict:
    """Whether a side keeps quorum at every instant.

    Args:
        schedule: the faults.
        nodes: members when it begins, oldest first.
        settle: faults less than this apart (seconds, or rounds if the schedule goes by rounds)
            meet the same view.
        one_host: all nodes share a host (relays), and not each has its own (namespaces).

    Raises:
        ConfigError: a fault names a node that is not there.
    """
    model = _Model(list(nodes), set(nodes), one_host)
    for burst in _bursts(schedule.faults, settle):
        dead: set[str] = set()
        side, reason = model.members, ""
        for fault in burst:
            dead |= model.apply(fault.deed)
            found, reason = model.side(dead)
            if found is None:
                told = " ".join(f"{k}={v}" for k, v in fault.plain().items())
                return Verdict(False, f"after {told}: {reason}", tuple(model.members))
            side = found
        model.settle(side)
    return Verdict(True, "", tuple(model.members))


def _bursts(faults: Iterable[Fault], settle: float) -> Iterator[list[Fault]]:
    burst: list[Fault] = []
    for fault in faults:
        if burst and fault.at.place - burst[-1].at.place >= settle:
            yield burst
            burst = []
        burst.append(fault)
    if burst:
        yield burst


@dataclass(slots=True)
class _Model:
    members: list[str]
    running: set[str]
    one_host: bool
    stopped: set[str] = field(default_factory=set)
    cuts: dict[tuple[str, str], Cut] = field(default_factory=dict)
    out: set[str] = field(default_factory=set)
    """Members that lost their seat although their worker runs."""

    def apply(self, deed: Deed) -> set[str]:
        """Returns members that vote no more, for sure."""
        self._check(deed)
        match deed:
            case Kill(node, Part.PEER):
                self.out.add(node)  # its worker starts another peer and joins again
                return {node}
            case Kill(node, part):
                self._end(node)
                # A worker's peer says its last word; both together say nothing, and that their
                # processes are gone is seen on the same host only.
                return {node} if self.one_host or part is Part.WORKER else set()
            case Leave(node):
                self._end(node)
                return {node}
            case Stop(node):
                self.stopped.add(node)
            case Cont(node):
                self.stopped.discard(node)
            case Join(node):
                self.running.add(node)
            case CutLink(a, b, how):
                self.cuts[a, b] = self.cuts[b, a] = how
            case CutOneWay(a, b, how):
                self.cuts[a, b] = how
            case Heal(a, b):
                healed = _pairs(a, b, self.cuts) | _pairs(b, a, self.cuts)
                self.cuts = {p: how for p, how in self.cuts.items() if p not in healed}
            case Throttle():
                pass
        return set()

    def _end(self, node: str) -> None:
        self.running.discard(node)
        self.stopped.discard(node)

    def side(self, dead: set[str]) -> tuple[list[str] | None, str]:
        """The side that goes on, of the last view's members; None with the reason if none may."""
        last, reason = tuple(self.members), ""
        for first in self._present(self.members):
            side = self._grown([first], self._present(self.members))
            ok, said = may_commit(last, side, dead)
            if ok:
                return [node for node in self.members if node in side], ""
            reason = reason or said
        return None, reason or "no member is left that runs"

    def settle(self, side: list[str]) -> None:
        """The view has changed; whoever a path leads to comes (back) in."""
        self.out.clear()
        others = sorted(self.running - set(side))
        self.members = self._grown(side, self._present(others))

    def _present(self, nodes: Iterable[str]) -> list[str]:
        gone = self.stopped | self.out
        return [node for node in nodes if node in self.running and node not in gone]

    def _grown(self, side: Sequence[str], others: Iterable[str]) -> list[str]:
        """The side and whoever of the others a path of links leads to."""
        grown = list(side)
        left = [node for node in others if node not in grown]
        while near := next((n for n in left if any(self._linked(n, m) for m in grown)), None):
            grown.append(near)
            left.remove(near)
        return grown

    def _linked(self, a: str, b: str) -> bool:
        return all(self.cuts.get(pair, Cut.NONE) is Cut.NONE for pair in ((a, b), (b, a)))

    def _check(self, deed: Deed) -> None:
        match deed:
            case Join(node):
                if node in self.running:
                    raise ConfigError(f"{node} cannot join: it runs already; take a new name")
            case Kill(node) | Stop(node) | Cont(node) | Leave(node):
                if node not in self.running:
                    what = type(deed).__name__.lower()
                    raise ConfigError(f"{what} {node}: {node} does not run then")
            case _:
                pass


def _pairs(a: str, b: str, among: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(p, q) for p, q in among if a in ("*", p) and b in ("*", q)}
