"""Nodes that share a machine compute with one thread each, unless somebody has chosen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cluster_fixtures import BOUND_S, SCRIPTS, Cluster

from lightning_chaos.testing.launch import ForkServer

pytestmark = pytest.mark.alone


def test_nodes_on_one_machine_use_one_thread_each_unless_their_users_have_chosen(
    tmp_path: Path,
) -> None:
    free = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    choices = {"a": "", "b": "", "by call": "call", "by variable": "variable"}
    env = {"CHAOS_LINGER": "0", "CHAOS_MIN_MEMBERS": str(len(choices))}
    script = SCRIPTS / "threads.py"
    with (
        ForkServer(free) as server,
        Cluster(script, directory=tmp_path / "run", env=env, launcher=server) as run,
    ):
        for node, choice in choices.items():
            run.start(node, env={"THREADS": choice})
        for node in choices:
            assert run.wait_exit(node, BOUND_S) == 0, run.tail(node)
        used = {e.node: int(e["used"]) for e in run.told("threads")}
        default = int(run.told("threads", "a")[0]["default"])
    assert used == {"a": 1, "b": 1, "by call": default + 1, "by variable": default}
