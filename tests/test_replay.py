"""A run can be recomputed by one process from its logs, bit for bit, whatever happened to it."""

from __future__ import annotations

from pathlib import Path

from cluster_fixtures import Cluster, MakeCluster, code_of

import lightning_chaos.cli
from lightning_chaos.testing.launch import ForkServer

ALL = ("a", "b", "c", "d")


def replay(fork_server: ForkServer, log: Path, tmp_path: Path) -> tuple[int, str]:
    """Exit code and output of ``lightning-chaos replay``."""
    output = tmp_path / "replay.out"
    output.unlink(missing_ok=True)
    command = [lightning_chaos.cli.__file__, "replay", str(log)]
    import os

    process = fork_server.launch(command, env=dict(os.environ), cwd=tmp_path, output=output)
    return code_of(process), output.read_text()


def hurt(cluster: Cluster) -> None:
    """Three nodes; a fourth joins, the oldest is killed, another leaves."""
    cluster.up("a", "b", "c")
    cluster.wait_rounds(5)
    cluster.start("d")
    cluster.wait_members("a", "b", "c", "d")
    cluster.wait_rounds(5)
    cluster.kill("a")
    cluster.wait_members("b", "c", "d")
    cluster.wait_rounds(5)
    cluster.leave("c")
    cluster.wait_members("b", "d")
    cluster.wait_rounds(5)
    cluster.finish("b", "d")


def test_replay(cluster: MakeCluster, fork_server: ForkServer, tmp_path: Path) -> None:
    nodes = cluster()
    hurt(nodes)
    code, said = replay(fork_server, nodes.log_dir, tmp_path)
    print(said)
    assert code == 0
