"""Each branch of the flush decision with real processes and links: what becomes of a round.

The oldest node stands still in a round to which all others have contributed; then the network
decides who gets which results once it contributes, too.  It takes some twenty seconds: four nodes
start one after another, and the branches follow each other in one run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations

import pytest
from cluster_fixtures import Cluster, MakeCluster

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.lab.conditions import Cut, Shape
from lightning_chaos.testing.lab.relays import Relays

NODES = ("n1", "n2", "n3", "n4")
LAST = "n1"
WIDTH = 1600
PIECE_BYTES = 23_000
"""Less than a piece of the sum (a quarter of 24,000 floats), and more than all heartbeats that a
way carries in the meantime."""
NEAR = Shape(rate_mbit=200, delay_ms=3)
"""A way whose other direction is silent still carries a round trip's worth: several pieces."""
FAR = Shape(rate_mbit=200, delay_ms=60)
"""A call arrives so much later than it was made: after the reset that made it necessary."""

Way = tuple[str, str]


@dataclass(frozen=True)
class End:
    """What became of a round that they all have."""

    stepped: dict[str, float]
    """When each told of its step."""
    frozen: dict[str, float]
    """When each was frozen first since the round's begin."""
    epoch: int
    """Of the view that it was made under."""
    members: list[str]
    """Who contributed."""


class Round:
    """One to which all but the oldest have contributed, and what they gave has arrived.

    The oldest stands still until :meth:`contribute`.
    """

    def __init__(self, run: Cluster, relays: Relays) -> None:
        self._run, self._relays = run, relays
        times = 1 + len(run.told("holds", LAST))
        run.hold(LAST)  # as soon as may be: without it nobody gets beyond that step
        self.step = 1 + int(run.wait_told("holds", LAST, times=times)["step"])
        for node in reversed(NODES):  # the oldest last, as it goes on with that
            run.hold(node, self.step)
        for node in NODES:
            run.wait_told_that(
                lambda e, n=node: (e.node, e.event, e.get("step")) == (n, "holds", self.step),  # type: ignore[misc]
                f"{node} to stand still in step {self.step}",
            )
        self.epoch = max(int(e["epoch"]) for e in run.told("view"))
        self._carried = self._seen = relays.carried_bytes()
        for node in NODES[1:]:
            run.let_go(node)
        self.arrived(1, (way for way in permutations(NODES, 2) if way[0] != LAST))

    def arrived(self, pieces: int, ways: Iterable[Way]) -> None:
        """Wait until so many pieces have arrived on each of these ways, and no more come."""
        wanted = [*ways]

        def there(_: object) -> bool:
            before, self._seen = self._seen, self._relays.carried_bytes()
            gained = [self._seen[way] - self._carried[way] for way in wanted]
            quiet = all(self._seen[way] == before[way] for way in wanted)
            return quiet and min(gained) > pieces * PIECE_BYTES

        self._run.wait_for(there, self._run.bound_s, f"{pieces} pieces on each of {wanted}")

    def contribute(self) -> None:
        """The oldest goes on."""
        self._run.let_go(LAST)

    def finished(self, *nodes: str) -> None:
        """Wait until these have made the step."""
        for node in nodes:
            self._run.wait_told_that(
                lambda e, n=node: (e.node, e.event, e.get("step")) == (n, "stepped", self.step + 1),  # type: ignore[misc]
                f"{node} to make step {self.step}",
            )

    def end(self, *nodes: str) -> End:
        """Wait until the round is stable at these nodes.  It is the same one everywhere."""
        rounds = [self._stable(node) for node in nodes]
        ((epoch, *members),) = {(e["epoch"], *e["members"]) for e in rounds}
        run = self._run
        stepped = {e.node: e.t for e in run.told("stepped") if e["step"] == self.step + 1}
        frozen: dict[str, float] = {}
        for e in run.told("freeze"):
            if e["epoch"] > self.epoch:
                frozen.setdefault(e.node, e.t - e["seconds"])
        return End(stepped, frozen, epoch, members)

    def _stable(self, node: str) -> LogEvent:
        return self._run.wait_told_that(
            lambda e: e.node == node and e.event == "round" and e["trained"] == self.step + 1,
            f"{node} to have step {self.step} for good",
        )


@pytest.mark.timeout(180)
def test_what_becomes_of_a_round_in_which_links_or_nodes_are_lost(
    cluster: MakeCluster, relays: Relays
) -> None:
    run = cluster("--holds", "--width", str(WIDTH), CHAOS_TIMEOUT="2")
    relays.shape(NEAR)
    for node in NODES:
        run.start(node, env={**relays.env_for(node), "CHAOS_MIN_MEMBERS": "4"})
        run.wait_told("start" if node == NODES[0] else "pull", node)
    run.wait_members(*NODES)
    run.wait_rounds(3)

    one_gets_it_from_the_others(run, relays)
    heal(run, relays)
    it_stands_as_all_is_held_together(run, relays)
    heal(run, relays)
    only_what_nobody_holds_is_done_again(run, relays)
    all_is_done_again_without_the_dead(run, relays)
    run.finish("n1", "n2", "n3")


def one_gets_it_from_the_others(run: Cluster, relays: Relays) -> None:
    """n3 lacks the results that n4 made; the others have finished."""
    this = Round(run, relays)
    relays.cut_one_way("n4", "n3")
    this.contribute()
    this.arrived(2, (way for way in permutations(NODES, 2) if way != ("n4", "n3")))
    this.finished("n1", "n2", "n4")
    relays.cut("n3", "n4", Cut.RESET)
    end = this.end(*NODES)
    assert all(end.stepped[node] < end.frozen[node] for node in ("n1", "n2", "n4"))
    assert end.stepped["n3"] > end.frozen["n3"]
    assert (end.epoch, len(end.members)) == (this.epoch, 4)


def it_stands_as_all_is_held_together(run: Cluster, relays: Relays) -> None:
    """Everybody lacks the results that some other made; nobody has finished."""
    this = Round(run, relays)
    lost = [("n2", "n3"), ("n3", "n2"), ("n2", "n4"), ("n4", "n1")]
    with relays.at_once():
        for way in lost:
            relays.cut_one_way(*way)
    this.contribute()
    this.arrived(2, (way for way in permutations(NODES, 2) if way not in lost))
    with relays.at_once():
        for a, b in lost:
            relays.cut(a, b, Cut.RESET)
    end = this.end(*NODES)
    assert all(end.stepped[node] > end.frozen[node] for node in NODES)
    assert (end.epoch, len(end.members)) == (this.epoch, 4)


def only_what_nobody_holds_is_done_again(run: Cluster, relays: Relays) -> None:
    """n2 never gets what n1 gave, so the results that n2 makes are nowhere; their link is reset."""
    relays.shape(FAR, "n1", "n2")
    this = Round(run, relays)
    relays.cut_one_way("n1", "n2")
    this.contribute()
    this.arrived(2, [("n3", "n1"), ("n4", "n1"), ("n3", "n4"), ("n4", "n3"), ("n3", "n2")])
    # One order, for both directions: a second would also reset the calls that the first has caused.
    relays.reset_one_way("n1", "n2")
    end = this.end(*NODES)
    assert all(end.stepped[node] > end.frozen[node] for node in NODES)
    assert (end.epoch, len(end.members)) == (this.epoch, 4)
    assert [e["redone"] for e in run.told("freeze") if e["epoch"] == this.epoch + 1] == [False] * 4


def all_is_done_again_without_the_dead(run: Cluster, relays: Relays) -> None:
    """n4 has given all, but nobody can have a result of it: n1 has given nothing yet."""
    this = Round(run, relays)
    run.kill("n4")
    run.wait_told_that(
        lambda e: (
            (e.node, e.event, e.get("planned")) == (LAST, "commit", False)
            and e["epoch"] > this.epoch
        ),
        "n1 to be told of a view without n4",
    )
    this.contribute()
    end = this.end("n1", "n2", "n3")
    assert end.epoch > this.epoch
    assert end.members == run.told("view", "n1")[-1]["uids"]


def heal(run: Cluster, relays: Relays) -> None:
    """Let every link work, and wait until all are back in a view that everybody uses."""
    relays.heal()

    def whole(_: object) -> bool:
        newest = [run.told("view", node)[-1] for node in NODES]
        return not any(e["missing"] for e in newest) and len({e["epoch"] for e in newest}) == 1

    run.wait_for(whole, run.bound_s, "a view with every link")
