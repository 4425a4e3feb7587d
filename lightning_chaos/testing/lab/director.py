"""Carries out a schedule on a run of real processes, and writes down what it did when."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lightning_chaos.monitor.runlog import RunLog
from lightning_chaos.testing.cluster import POLL_S, LocalCluster
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
from lightning_chaos.testing.lab.network import Network

TRUTH = "truth.jsonl"
"""Name of the file with the ground truth, in the cluster's directory."""


class Director:
    """Does what a schedule says, when it says so; use it as a context manager.

    Every fault is an event ``fault`` of the ground truth, with the fields it has in YAML, but
    that the node is called ``hit``; its time is taken just before it is done.  Signals are real
    ones; links are cut in the network.

    Args:
        schedule: the faults.
        cluster: whose nodes they meet; started with :meth:`start`.
        network: what the nodes' links go through.
        env: variables for every node.
        clock: seconds, monotonic.

    Raises:
        ConfigError: the network cannot do what the schedule asks of its links.
    """

    def __init__(
        self,
        schedule: Schedule,
        cluster: LocalCluster,
        network: Network,
        *,
        env: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for fault in schedule.faults:
            _check(fault.deed, network)
        self._left = list(schedule.faults)
        self._cluster = cluster
        self._network = network
        self._env = dict(env or {})
        self._clock = clock
        self._begin: float | None = None
        self._seen = 0
        self.round = -1
        """The latest round that is stable anywhere."""
        self._log = RunLog(cluster.directory / TRUTH, "lab")

    @property
    def truth(self) -> Path:
        """File with what was done, a run log of the node "lab"."""
        return self._cluster.directory / TRUTH

    @property
    def begun(self) -> bool:
        """Seconds count."""
        return self._begin is not None

    @property
    def done(self) -> bool:
        """Nothing is left to do."""
        return not self._left

    def start(self, node: str) -> None:
        """Start a node in the network."""
        self._log.write("node", name=node)
        self._cluster.start(node, env=self._env | self._network.env_for(node))

    def begin(self) -> None:
        """From now on seconds count."""
        self._begin = self._clock()
        self._log.write("begin", run=self._cluster.run)

    def step(self) -> list[Fault]:
        """Do what is due; returns it.  To be called often."""
        self._look()
        done = []
        while self._left and self._due(self._left[0]):
            fault = self._left.pop(0)
            fields = fault.plain()
            if "node" in fields:  # a line's own "node" says who wrote it
                fields["hit"] = fields.pop("node")
            self._log.write("fault", **fields)
            self._do(fault.deed)
            done.append(fault)
        return done

    def run(self, timeout_s: float) -> None:
        """Carry out the whole schedule.

        Raises:
            TimeoutError: after ``timeout_s`` seconds some of it is left, since the run does not
                reach its rounds, or since every node has ended.
        """
        if not self.begun:
            self.begin()
        deadline = self._clock() + timeout_s
        while not self.done:
            self.step()
            ended = all(self._cluster.exit_code(n) is not None for n in self._cluster.nodes)
            if self._left and (ended or self._clock() > deadline):
                why = "every node has ended" if ended else f"{timeout_s:g} s have passed"
                raise TimeoutError(
                    f"{why}, round {self.round} is stable, and {len(self._left)} faults are left; "
                    f"the next is {self._left[0].plain()}"
                )
            time.sleep(POLL_S)

    def close(self) -> None:
        """End the ground truth.  Idempotent; nodes and network are their owners' to end."""
        self._log.close()

    def __enter__(self) -> Director:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- inside ----------------------------------------------------------------------------

    def _look(self) -> None:
        self._cluster.poll()
        for event in self._cluster.events[self._seen :]:
            if event.event == "round":
                self.round = max(self.round, int(event["round"]))
        self._seen = len(self._cluster.events)

    def _due(self, fault: Fault) -> bool:
        if fault.at.round is not None:
            return self.round >= fault.at.round
        return self._begin is not None and self._clock() - self._begin >= fault.at.place

    def _do(self, deed: Deed) -> None:
        cluster, network = self._cluster, self._network
        match deed:
            case Kill(node, Part.WORKER):
                cluster.kill_worker(node)
            case Kill(node, Part.PEER):
                cluster.kill_peer(node)
            case Kill(node):
                cluster.kill(node)
            case Stop(node, part):
                cluster.suspend(node, worker=part is not Part.PEER, peer=part is not Part.WORKER)
            case Cont(node):
                cluster.resume(node)
            case Leave(node):
                cluster.leave(node)
            case Join(node):
                self.start(node)
            case CutLink(a, b, how):
                network.cut(a, b, how)
            case CutOneWay(a, b, how):
                network.cut_one_way(a, b, how)
            case Throttle(a, b, shape):
                network.shape(shape, a, b)
            case Heal(a, b):
                network.heal(a, b)


def _check(deed: Deed, network: Network) -> None:
    match deed:
        case CutLink(how=how) | CutOneWay(how=how):
            network.check(how)
        case Throttle(shape=shape):
            network.check(shape)
        case _:
            pass
