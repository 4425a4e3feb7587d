"""Members of a run without a Trainer: what benchmarks of the data path measure with."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import common

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.replication.image import StateImage
from lightning_chaos.testing.cluster import LocalCluster
from lightning_chaos.testing.launch import ForkServer
from lightning_chaos.worker.node import Node
from lightning_chaos.worker.turns import Apart, Go, Hold

PATIENCE_S = 300.0


# ---- in a member's process -------------------------------------------------------------------


@contextmanager
def seated_node(members: int, rate_bytes_per_s: float | None = None) -> Iterator[Node]:
    """A node of a run of that many, in its first round: what a Trainer would use.

    Args:
        members: how many there will be.
        rate_bytes_per_s: speed limit of each link, None for none.
    """
    config = PeerConfig(
        run=os.environ["CHAOS_RUN"],
        node=os.environ["CHAOS_NODE"],
        min_members=members,
        linger_s=0.0,
        log_level="WARNING",
    )
    node = Node(config, rate_bytes_per_s=rate_bytes_per_s, run_log=os.environ["CHAOS_LOG"])
    try:
        node.open()
        node.ask_seat((("benchmark", "1"),))
        while True:
            match node.turn():
                case Go():
                    break
                case Hold() as hold:
                    node.hold(hold, _image(node))
                case Apart():
                    pulled = node.learn(lambda: _image(node), lambda _: None)
                    node.take_seat(pulled.manifest.operation)
                case turn:
                    raise RuntimeError(f"a member was told {turn}")
        node.begin_round()
        yield node
    finally:
        node.close()


def _image(node: Node) -> StateImage:
    return StateImage.of({}, {}, round=node.round + 1, operation=node.last_operation)


# ---- in the benchmark's own process ----------------------------------------------------------


def measured(script: Path, members: int, args: Sequence[str]) -> list[LogEvent]:
    """Run that script as so many members; the ``measured`` events that the oldest of them logs.

    Args:
        script: writes its figures with :meth:`Node.log`; ends by itself.
        members: how many processes.
        args: the command line of each.
    """
    with tempfile.TemporaryDirectory() as directory, ForkServer() as server:
        command = [*args, "--members", str(members), "--meet", f"{directory}/meet"]
        place = Path(directory) / "cluster"
        with LocalCluster(script, args=command, directory=place, launcher=server) as cluster:
            nodes = [f"m{i}" for i in range(members)]
            cluster.start(nodes[0])
            cluster.wait_for(lambda found: any(e.event == "start" for e in found), 60.0, "m0")
            cluster.start(*nodes[1:])
            for node in nodes:
                if cluster.wait_exit(node, PATIENCE_S):
                    raise RuntimeError(f"{node} failed:\n{cluster.tail(node, 40)}")
            return [e for e in cluster.events if e.event == "measured" and e.node == nodes[0]]


def parser(description: str) -> argparse.ArgumentParser:
    """Options of such a benchmark; ``--members`` and ``--meet`` are for its processes."""
    parser = common.parser(description)
    parser.add_argument("--members", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--meet", default="", help=argparse.SUPPRESS)
    return parser
