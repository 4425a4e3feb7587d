"""How long joins, kills and leaves take, and how long they make others stand still.

    python benchmarks/events.py [--repeat 15] [--write benchmarks/results/events.md]

Real processes on loopback, one thread per worker: four nodes train steps of 20 ms by a timer
(``steady.py``).  Repeated in turn: SIGKILL to a worker, to a peer, to both, to both of the oldest
member (the lead), SIGTERM to a member; after each a new node joins.  Times are those of the run
logs, all of one clock:

* kill: SIGKILL until the slowest survivor's next stable round, less one ordinary round;
* freeze: the longest time a survivor's worker completed nothing for it;
* control time: from a node's request until the COMMIT that grants it is at every worker;
* stand-still: how long a donor held still for a newcomer's pull;
* leave: by how much the longest of the rounds around the switch was longer than an ordinary one.

In the same run: the control times among peers whose workers only answer (``idle.py``), and what
the bare exchange of the same messages takes (``bare.py``), beside the training and without it.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bare import BareExchange
from common import Figures, machine, parser, publish
from idle import IdlePeers

from lightning_chaos.demo.timings import Deed, median_round_s, timings
from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.cluster import LocalCluster
from lightning_chaos.testing.launch import ForkServer

SCRIPT = Path(__file__).with_name("steady.py")
NODES = 4
BETWEEN_ROUNDS = 20
PATIENCE_S = 60.0


class Training:
    """One training cluster, brought back to :data:`NODES` members after each event."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._started = 0
        self.figures = Figures()
        self.rounds: list[float] = []

    def grow(self) -> None:
        """Start a node and wait until it has its seat."""
        self._started += 1
        node = f"n{self._started}"
        begun = len(self._cluster.events)
        self._cluster.start(node)
        self._wait(lambda: node in self.members(), f"{node} to join")
        self._rounds_more(5)  # donors and newcomer have logged it by then
        self._note_join(node, self._cluster.events[begun:])

    def kill(self, name: str, node: str, act: Callable[[str], None]) -> None:
        """SIGKILL to something of a member; waits until the others go on."""
        took, freeze = self._after(node, "kill", lambda: act(node))
        self.figures.add(f"kill of {name}: until the next stable round", took)
        self.figures.add(f"kill of {name}: longest freeze of a survivor", freeze)

    def leave(self, node: str) -> None:
        """SIGTERM to a member."""
        begun = len(self._cluster.events)
        _, longer = self._after(node, "leave", lambda: self._cluster.leave(node))
        self._cluster.wait_exit(node, PATIENCE_S)
        fresh = self._cluster.events[begun:]
        self._note_control("leave", fresh, "leaving", node, f"{node} leaves")
        self.figures.add("leave: longest round of the others, above an ordinary one", longer)

    def regrown(self, node: str) -> None:
        """A member came back by itself or is replaced."""
        if self._cluster.exit_code(node) is None:
            self._wait(lambda: node in self.members(), f"{node} to come back")
            self._rounds_more(5)
        else:
            self.grow()

    def settle(self) -> None:
        """Let some ordinary rounds go by."""
        begun = len(self._cluster.events)
        self._rounds_more(BETWEEN_ROUNDS)
        self.rounds.append(median_round_s(self._cluster.events[begun:]))

    def members(self) -> list[str]:
        """Names in the newest view that is in force anywhere, oldest first."""
        self._cluster.poll()
        views = [e for e in self._cluster.events if e.event == "view"]
        return list(max(views, key=lambda e: e["epoch"])["members"]) if views else []

    def _note_join(self, node: str, fresh: Sequence[LogEvent]) -> None:
        holds = [e["seconds"] for e in fresh if e.event == "hold" and node in e["serving"]]
        if not holds:
            return  # the founder
        self._note_control("join", fresh, "ready", node, f"{node} starts to learn")
        self.figures.add("join: longest stand-still of a donor", max(holds))
        # The last one: what it pulled may have been made anew meanwhile.
        pull = [e for e in fresh if e.event == "pull" and e.node == node][-1]
        self.figures.add("join: the pull itself", pull["seconds"])

    def _note_control(
        self, what: str, fresh: Sequence[LogEvent], wish: str, node: str, reason: str
    ) -> None:
        asked = next(e.t for e in fresh if e.event == wish and e.node == node)
        commits = [e.t for e in fresh if e.event == "commit" and reason in e["reason"]]
        self.figures.add(f"{what}: control time with training workers", max(commits) - asked)

    def _after(self, node: str, kind: str, act: Callable[[], None]) -> tuple[float, float]:
        begun = len(self._cluster.events)
        deed = Deed(kind, node, time.time())
        act()
        self._wait(
            lambda: any(_without(e, node) for e in self._cluster.events[begun:]),
            f"the others to go on after the {kind} of {node}",
        )
        self._rounds_more(5)
        # The rounds just before say what an ordinary one is.
        events = self._cluster.events[max(0, begun - 100) :]
        timing = timings(sorted(events, key=lambda e: e.t), [deed], "")[1]
        assert timing.took_s is not None
        return timing.took_s, timing.still_s or 0.0

    def _rounds_more(self, count: int) -> None:
        last = self._last_round() + count
        self._wait(lambda: self._last_round() >= last, f"round {last}")

    def _last_round(self) -> int:
        self._cluster.poll()
        return max((e["round"] for e in self._cluster.events if e.event == "round"), default=-1)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        self._cluster.wait_for(lambda _: condition(), PATIENCE_S, what)


def _without(event: LogEvent, node: str) -> bool:
    return event.event == "view" and node not in event["members"]


async def bare(figures: Figures, repeat: int, where: str) -> None:
    """The bare exchange, so often."""
    async with BareExchange() as exchange:
        for what in ("join", "leave"):
            for _ in range(repeat):
                seconds = await exchange.seconds(what)
                figures.add(f"{what}: bare exchange of the same messages, {where}", seconds)


async def idle(figures: Figures, repeat: int, directory: Path) -> None:
    """Joins and leaves among idle workers."""
    async with IdlePeers(directory / "discovery") as peers:
        for _ in range(repeat):
            figures.add("join: control time with idle workers", await peers.join())
            figures.add("leave: control time with idle workers", await peers.leave())


def train(directory: Path, repeat: int) -> Training:
    """All events with training workers, and the bare exchange beside them."""
    with (
        ForkServer() as server,
        LocalCluster(
            SCRIPT,
            directory=directory,
            env={"CHAOS_LINGER": "0"},
            launcher=server,
        ) as cluster,
    ):
        training = Training(cluster)
        for _ in range(NODES):
            training.grow()
        training.figures.samples.clear()
        for _ in range(repeat):
            for name, place, act in (
                ("a worker", 2, cluster.kill_worker),
                ("a peer", 2, cluster.kill_peer),
                ("both", 2, cluster.kill),
                ("both of the lead", 0, cluster.kill),
            ):
                training.settle()
                node = training.members()[place]
                training.kill(name, node, act)
                training.regrown(node)
            training.settle()
            training.leave(training.members()[2])
            training.grow()
        asyncio.run(bare(training.figures, repeat, "beside training workers"))
    return training


def main() -> None:
    """Measure and print; see the module."""
    arguments_of = parser(__doc__.splitlines()[0])
    arguments_of.add_argument(
        "--repeat", type=int, default=15, help="times each (default: %(default)s)"
    )
    arguments = arguments_of.parse_args()
    repeat = 1 if arguments.smoke else arguments.repeat
    with tempfile.TemporaryDirectory() as directory:
        training = train(Path(directory) / "training", repeat)
        figures = training.figures
        asyncio.run(idle(figures, repeat, Path(directory)))
        asyncio.run(bare(figures, repeat, "idle"))
    ordinary = statistics.median(training.rounds) * 1e3
    about = (
        f"{NODES} members on loopback, one thread each; ordinary round {ordinary:.1f} ms, of which "
        "20 ms are the step's timer."
    )
    publish("\n".join([machine(), about, "", *figures.rows()]) + "\n", arguments.write)


if __name__ == "__main__":
    main()
