"""A storm written by hand: its logs, its ground truth and what its driver knows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.storm.facts import Exit, Facts, Machine
from lightning_chaos.storm.figures import Figures, gather
from lightning_chaos.testing.lab.conditions import Shape

BEGAN = 1_000_000.0
SHAPE = Shape(rate_mbit=100.0, delay_ms=10.0)
FACTS = Facts(
    seed=7,
    minutes=0.2,
    planned=1,
    not_survivable="",
    shape=SHAPE,
    began=BEGAN,
    over=BEGAN + 12.0,
    ending="",
    finished_itself=False,
    missing=(),
    patience_s=30.0,
    problems=(),
    founders=("a", "b", "c"),
    exits={},
    running={},
    carried=(),
    machine=Machine(2, 0.5, 0.9, {"torch": "2.0"}),
    command="lightning-chaos storm --seed 7",
)


@dataclass
class Story:
    """Collects events; times are seconds of the storm."""

    events: list[LogEvent] = field(default_factory=list)
    truth: list[LogEvent] = field(default_factory=list)
    facts: Facts = FACTS
    last: int = -1
    samples: int = 0
    epoch_s: tuple[int, int] = (0, 0)

    def tell(self, t: float, node: str, event: str, **fields: Any) -> None:
        """A line of a node's log."""
        self.events.append(LogEvent(BEGAN + t, node, event, fields))

    def do(self, t: float, do: str, **fields: Any) -> None:
        """A line of the ground truth."""
        plain = {"at": {"seconds": t}, "do": do, **fields}
        self.truth.append(LogEvent(BEGAN + t, "lab", "fault", plain))

    def start(self, t: float, node: str, incarnation: str = "1") -> None:
        """A process begins (its first incarnation), or a node comes back."""
        if incarnation == "1":
            self.truth.append(LogEvent(BEGAN + t, "lab", "node", {"name": node}))
        self.tell(t, node, "start", uid=f"{node}/{incarnation}")

    def view(self, t: float, epoch: int, uids: str, reason: str = "") -> None:
        """Everybody in it uses it at that moment."""
        names = [uid.partition("/")[0] for uid in uids.split()]
        for node in names:
            self.tell(
                t,
                node,
                "view",
                epoch=epoch,
                members=names,
                uids=uids.split(),
                learners=[],
                switch=0,
                round=0,
                reason=reason,
            )

    def rounds(self, a: float, b: float, epoch: int, nodes: str, wait_s: float = 0.04) -> None:
        """Stable rounds of 8 samples a member, ten a second, told by all of them at once."""
        names = nodes.split()
        for step in range(round((b - a) * 10)):
            self.last += 1
            begin, self.samples = self.samples, self.samples + 8 * len(names)
            ranges = [[[begin + 8 * k, begin + 8 * k + 8]] for k in range(len(names))]
            for node in names:
                self.tell(
                    a + step / 10,
                    node,
                    "round",
                    round=self.last,
                    epoch=epoch,
                    data_epoch=0,
                    members=names,
                    weights=[8.0] * len(names),
                    ranges=ranges,
                    size=1_000_000,
                    seed=1,
                    shuffle=True,
                    round_s=0.1,
                    wait_s=wait_s,
                )

    def end(self, t: float, nodes: str, digest: str = "d1") -> None:
        """These trained to the end."""
        for node in nodes.split():
            self.tell(t, node, "final", round=self.last, digest=digest)
            self.exit(t + 0.5, node)

    def exit(self, t: float, node: str, code: int = 0, words: str = "") -> None:
        """A worker process ends."""
        exits = {**self.facts.exits, node: Exit(code, BEGAN + t, words)}
        self.facts = replace(self.facts, exits=exits)

    def figures(self) -> Figures:
        """What the report would show."""
        ordered = sorted(self.events, key=lambda e: e.t)
        return gather(ordered, sorted(self.truth, key=lambda e: e.t), self.facts)


def calm(names: str = "a b c") -> Story:
    """Three nodes found a run before the storm begins."""
    story = Story(facts=replace(FACTS, founders=tuple(names.split())))
    for node in names.split():
        story.start(-2.0, node)
    story.view(-1.0, 3, " ".join(f"{node}/1" for node in names.split()), "founded")
    return story


def stopped_and_back() -> Story:
    """c is stopped at 3 s, left out at 4.1, goes on at 5 and is a member again at 5.6."""
    story = calm()
    story.rounds(0.0, 3.0, 3, "a b c")
    story.do(3.0, "stop", hit="c", part="both")
    for node in "ab":
        story.tell(4.1, node, "freeze", epoch=4, seconds=0.1, reason="c: silent", redone=True)
    story.view(4.1, 4, "a/1 b/1", "c: silent")
    story.rounds(4.2, 5.0, 4, "a b")
    story.do(5.0, "cont", hit="c")
    story.start(5.1, "c", "2")
    for node in "ab":
        story.tell(5.5, node, "hold", round=9, epoch=5, seconds=0.5, serving=["c"])
    story.tell(5.5, "c", "pull", round=9, bytes=2_000_000, seconds=0.3, per_donor=[])
    story.view(5.6, 6, "a/1 b/1 c/2", "c joins")
    story.rounds(5.7, 12.0, 6, "a b c")
    story.end(12.2, "a b c")
    return story
