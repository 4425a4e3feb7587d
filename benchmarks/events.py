"""How long joins, kills and leaves take, and how long they make others stand still.

    python benchmarks/events.py [--repeat 10] [--write benchmarks/results/events.md]

Real processes on loopback, one thread per worker: four nodes train the digits example.  In every
repetition the oldest of them (the lead), worker and peer, gets SIGKILL; a new node joins; then
the youngest but one gets SIGTERM and another one joins.  Times come from the nodes' run logs:

* kill: SIGKILL until the slowest survivor's next stable round, less one ordinary round;
* freeze: how long a survivor's worker completed nothing for it;
* join: learner's place until seat, and how long a donor held still;
* leave: SIGTERM until the node is out of the run, and by how much the longest of the rounds
  around the switch was longer than an ordinary one.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psutil

from lightning_chaos.demo.timings import Deed, median_round_s, timings
from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.cluster import LocalCluster
from lightning_chaos.testing.launch import ForkServer

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "digits.py"
NODES = 4
BETWEEN_ROUNDS = 25
PATIENCE_S = 60.0


class Bench:
    """One cluster, kept at :data:`NODES` members."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._started = 0
        self.samples: dict[str, list[float]] = {}
        self.rounds: list[float] = []

    def grow(self) -> None:
        """Start a node and wait until it has its seat."""
        self._started += 1
        node = f"n{self._started}"
        begun = len(self._cluster.events)
        self._cluster.start(node)
        self._wait(lambda _: node in self.members(), f"{node} to join")
        start = self._last_round()  # donors and newcomer have logged it a few rounds later
        self._wait(lambda _: self._last_round() >= start + 5, f"rounds with {node}")
        fresh = self._cluster.events[begun:]
        holds = [e["seconds"] for e in fresh if e.event == "hold" and node in e["serving"]]
        if holds:
            self._add("join: longest stand-still of a donor", max(holds))
            (pull,) = [e for e in fresh if e.event == "pull" and e.node == node]
            self._add("join: the pull itself", pull["seconds"])

    def kill_the_lead(self) -> None:
        """SIGKILL to worker and peer of the oldest member."""
        node = self.members()[0]
        found = self._after(node, "kill", lambda: self._cluster.kill(node))
        self._add("kill of the lead: until the next stable round", found[0])
        self._add("kill of the lead: longest freeze of a survivor", found[1])

    def leave(self) -> None:
        """SIGTERM to the youngest but one."""
        node = self.members()[-2]
        found = self._after(node, "leave", lambda: self._cluster.leave(node))
        self._cluster.wait_exit(node, PATIENCE_S)
        self._add("leave: SIGTERM until out of the run", found[0])
        self._add("leave: longest round of the others, above an ordinary one", found[1])

    def members(self) -> list[str]:
        """Names in the newest view that is in force anywhere, oldest first."""
        self._cluster.poll()
        views = [e for e in self._cluster.events if e.event == "view"]
        return list(max(views, key=lambda e: e["epoch"])["members"]) if views else []

    def settle(self) -> None:
        """Let some ordinary rounds go by."""
        start = self._last_round()
        self._wait(lambda _: self._last_round() >= start + BETWEEN_ROUNDS, "ordinary rounds")
        recent = self._cluster.events[-200:]
        self.rounds.append(median_round_s(recent))

    def _after(self, node: str, kind: str, act: Callable[[], None]) -> tuple[float, float]:
        begun = len(self._cluster.events)
        deed = Deed(kind, node, time.time())
        act()
        start = self._last_round()
        self._wait(
            lambda _: node not in self.members() and self._last_round() >= start + 5,
            f"the others to go on after the {kind} of {node}",
        )
        ordinary = [e for e in self._cluster.events[max(0, begun - 100) : begun]]
        fresh: list[LogEvent] = ordinary + list(self._cluster.events[begun:])
        timing = timings(sorted(fresh, key=lambda e: e.t), [deed], "")[1]
        return timing.took_s or 0.0, timing.still_s or 0.0

    def _last_round(self) -> int:
        self._cluster.poll()
        return max((e["round"] for e in self._cluster.events if e.event == "round"), default=-1)

    def _wait(self, condition: Callable[[object], bool], what: str) -> None:
        self._cluster.wait_for(condition, PATIENCE_S, what)

    def _add(self, name: str, seconds: float) -> None:
        self.samples.setdefault(name, []).append(seconds)


def table(bench: Bench) -> str:
    """Markdown: machine, versions, then median and spread of everything measured."""
    names = ("lightning-chaos", "torch", "lightning")
    versions = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in names)
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    lines = [
        f"{cores} cores ({platform.machine()}), {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, {versions}.",
        f"{NODES} members on loopback, one thread each; ordinary round "
        f"{statistics.median(bench.rounds) * 1e3:.1f} ms.",
        "",
        "| what | n | median | p95 | min | max |",
        "|---|---|---|---|---|---|",
    ]
    for name, samples in sorted(bench.samples.items()):
        ordered = sorted(samples)
        p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
        figures = (statistics.median(ordered), p95, ordered[0], ordered[-1])
        lines.append(
            f"| {name} | {len(ordered)} | "
            + " | ".join(f"{f * 1e3:.1f} ms" for f in figures)
            + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--write", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ForkServer() as server:
        args = ["--max-epochs", "100000", "--padding-mb", "16", "--out-dir", f"{directory}/out"]
        args += ["--checkpoint-epochs", "0"]
        with LocalCluster(
            EXAMPLE,
            args=args,
            directory=Path(directory),
            env={"CHAOS_LINGER": "0"},
            launcher=server,
        ) as cluster:
            bench = Bench(cluster)
            for _ in range(NODES):
                bench.grow()
            bench.samples.clear()
            for _ in range(arguments.repeat):
                bench.settle()
                bench.kill_the_lead()
                bench.grow()
                bench.settle()
                bench.leave()
                bench.grow()
    text = table(bench)
    print(text)
    if arguments.write:
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
