"""A user's script on every host of a lab, under a script of faults, told as it goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_chaos.errors import ConfigError
from lightning_chaos.testing.cluster import POLL_S, LocalCluster
from lightning_chaos.testing.lab.conditions import FREE, Shape
from lightning_chaos.testing.lab.director import Director
from lightning_chaos.testing.lab.faults import Fault, Join, Kill, Schedule
from lightning_chaos.testing.lab.network import Network
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.lab.survival import survivable
from lightning_chaos.testing.lab.wan.namespaces import Namespaces
from lightning_chaos.testing.launch import Launcher

NO_FAULTS = Schedule(())


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done."""

    script: Path
    args: Sequence[str] = ()
    hosts: int = 3
    shape: Shape = FREE
    """Of all links."""
    schedule: Schedule = NO_FAULTS
    relays: bool = False
    """Links go through relays, and not between namespaces."""
    congestion: str = "cubic"
    directory: Path | None = None
    """Where logs and output stay, None for nowhere."""

    @property
    def nodes(self) -> list[str]:
        """Those that are there from the beginning."""
        return [f"n{number}" for number in range(1, self.hosts + 1)]


def perform(plan: Plan, tell: Callable[[str], None], launcher: Launcher | None = None) -> bool:
    """Start the nodes, carry out the faults, and wait until all nodes have ended.

    Args:
        plan: what is to be done.
        tell: given each line of the story.
        launcher: how nodes start, None for a new interpreter each.

    Returns:
        Whether all faults were carried out, and all nodes but those killed ended well.

    Raises:
        ConfigError: the machine or the kind of network cannot do what is asked, or the directory
            holds an older run.
    """
    if plan.directory and any((plan.directory / "logs").glob("*.jsonl")):
        raise ConfigError(f"{plan.directory} holds the logs of an older run; take another")
    verdict = survivable(plan.schedule, plan.nodes, one_host=plan.relays)
    if not verdict.survives:
        tell(f"the run need not survive this: {verdict.reason}")
    with contextlib.ExitStack() as stack:
        network: Network
        if plan.relays:
            network = stack.enter_context(Relays())
        else:
            joining = sum(isinstance(fault.deed, Join) for fault in plan.schedule.faults)
            hosts = max(2, plan.hosts + joining)
            spaces = stack.enter_context(Namespaces(hosts, congestion=plan.congestion))
            network, launcher = spaces, spaces.launcher(launcher)
        network.shape(plan.shape)
        cluster = stack.enter_context(
            LocalCluster(plan.script, args=plan.args, directory=plan.directory, launcher=launcher)
        )
        director = stack.enter_context(Director(plan.schedule, cluster, network))
        return _Session(plan, cluster, director, tell).run()


class _Session:
    def __init__(
        self, plan: Plan, cluster: LocalCluster, director: Director, tell: Callable[[str], None]
    ) -> None:
        self._nodes = plan.nodes
        self._cluster = cluster
        self._director = director
        self._tell = tell
        self._began = time.monotonic()
        self._seen = 0
        self._epoch = 0
        self._ended: set[str] = set()
        self._killed: set[str] = set()

    def run(self) -> bool:
        for node in self._nodes:
            self._director.start(node)
        self._say(f"started {', '.join(self._nodes)}")
        while len(self._ended) < len(self._cluster.nodes):
            done = self._director.step()
            self._follow()
            for fault in done:
                self._note(fault)
            self._see_ended()
            time.sleep(POLL_S)
        if not self._director.done:
            self._say("some faults are left: their time never came")
        return self._director.done and not self._failed()

    def _follow(self) -> None:
        """Tell of new views; the faults' clock starts once all are in."""
        for event in self._cluster.events[self._seen :]:
            if event.event == "view" and event["epoch"] > self._epoch:
                self._epoch = event["epoch"]
                members = event["members"]
                self._say(f"epoch {self._epoch}, round {self._director.round}: {' '.join(members)}")
                if set(members) >= set(self._nodes) and not self._director.begun:
                    self._director.begin()
        self._seen = len(self._cluster.events)

    def _note(self, fault: Fault) -> None:
        words = " ".join(f"{key}={value}" for key, value in fault.plain().items() if key != "at")
        self._say(f"fault: {words}")
        if isinstance(fault.deed, Kill):
            self._killed.add(fault.deed.node)

    def _see_ended(self) -> None:
        for node in self._cluster.nodes:
            code = self._cluster.exit_code(node)
            if code is None or node in self._ended:
                continue
            self._ended.add(node)
            self._say(f"{node} ended with {code}")
            if node in self._failed():
                self._tell(self._cluster.tail(node))

    def _failed(self) -> list[str]:
        ended = self._ended - self._killed
        return [node for node in ended if self._cluster.exit_code(node)]

    def _say(self, text: str) -> None:
        self._tell(f"{time.monotonic() - self._began:7.1f} s  {text}")
