"""Under torchrun: agents and workers come, die and leave, and nobody else's worker restarts.

It takes half a minute: agents and workers, which are the subject, each import torch anew.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from cluster_fixtures import SCRIPTS, Cluster
from places import EmptyPlace

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.launch import ColdStart, Running

COLD_S = 60.0
LEAVE_S = 20.0


class Torchrun:
    """Starts scripts under ``torchrun`` with flags for each node."""

    def __init__(self, flags: Mapping[str, Sequence[str]]) -> None:
        self._flags = flags

    def launch(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: Path
    ) -> Running:
        words = ["-m", "torch.distributed.run", *self._flags[env["CHAOS_NODE"]], *command]
        # The run must be known from torchrun's flags alone.
        env = {key: value for key, value in env.items() if key != "CHAOS_RUN"}
        return ColdStart().launch(words, env=env, cwd=cwd, output=output)


@pytest.fixture
def addresses() -> Iterator[list[str]]:
    """Three addresses on this machine that nobody uses, and nobody else gets."""
    with EmptyPlace() as one, EmptyPlace() as two, EmptyPlace() as three:
        yield [str(place.address) for place in (one, two, three)]


def _port(address: str) -> str:
    return address.partition(":")[2]


def worker(run: Cluster, node: str) -> int:
    """Process id of the node's present worker."""
    return int(run.told("start", node)[-1]["pid"])


def pids(run: Cluster, *nodes: str) -> list[int]:
    """Process ids of all that the nodes' agents have started so far."""
    return [int(e[key]) for n in nodes for e in run.told("start", n) for key in ("pid", "peer_pid")]


@pytest.mark.alone
@pytest.mark.cold
@pytest.mark.timeout(180)
def test_whoever_comes_dies_or_leaves_nobody_else_restarts(
    tmp_path: Path, addresses: list[str]
) -> None:
    first, second, third = addresses
    common = ["--rdzv-id=digits", "--nnodes=2:8", "--nproc-per-node=1", "--max-restarts=3"]
    chaos = "--rdzv-backend=chaos"
    flags = {
        "a": [chaos, f"--rdzv-endpoint={first}", *common],
        # By the environment instead of a flag, and with a port that others can be told.
        "b": [f"--rdzv-endpoint={first}", f"--rdzv-conf=port={_port(second)}", *common],
        # It knows the second one's address only, where nobody is yet.
        "c": [chaos, f"--rdzv-endpoint={second}", f"--rdzv-conf=port={_port(third)}", *common],
    }
    with Cluster(
        SCRIPTS / "train.py",
        directory=tmp_path / "run",
        env={"CHAOS_LINGER": "0", "PET_RDZV_BACKEND": "chaos"},
        launcher=Torchrun(flags),
    ) as run:
        run.bound_s = COLD_S
        run.start("a", "b", "c")
        run.wait_members("a", "b", "c")
        assert len(run.told("start")) == 3
        assert {e["run"] for e in run.told("start")} == {"digits"}
        assert all(len(e["members"]) >= 2 for e in run.told("round"))  # MIN of --nnodes

        _a_killed_worker_comes_back(run)
        _a_killed_agent_takes_its_worker_along(run)
        _workers_killed_together_found_one_run(run)
        _torchrun_is_told_to_end(run)
        _a_worker_is_told_to_end(run)


def _a_killed_worker_comes_back(run: Cluster) -> None:
    """The founder's, at whose address the others came in."""
    os.kill(worker(run, "a"), signal.SIGKILL)
    run.wait_members("b", "c")
    run.wait_members("b", "c", "a")
    before, now = run.told("start", "a")
    assert before["pid"] != now["pid"]
    assert before["uid"] != now["uid"]
    assert before["address"] == now["address"]
    assert len(run.told("start")) == 4  # nobody else restarted


def _a_killed_agent_takes_its_worker_along(run: Cluster) -> None:
    run.kill_worker("b")  # the process that was started for the node, which is torchrun
    for pid in pids(run, "b"):
        run.wait_gone(pid)
    run.wait_members("c", "a")
    assert run.told("leave", "b")  # politely
    assert len(run.told("start")) == 4


def _workers_killed_together_found_one_run(run: Cluster) -> None:
    def together(events: Sequence[LogEvent]) -> bool:
        came = {e["uid"] for e in events if e.event == "start" and e.t > killed}
        rounds = (e for e in events if e.event == "round" and len(e["members"]) == 2)
        return any(came.issuperset(e["members"]) for e in rounds)

    killed = time.time()
    for node in "ca":
        os.kill(worker(run, node), signal.SIGKILL)
    run.wait_for(together, COLD_S, "c and a to train together again")
    founded = [e for e in run.told("view") if e.t > killed and e["reason"] == "founded"]
    assert len(founded) == 1


def _torchrun_is_told_to_end(run: Cluster) -> None:
    leaves = len(run.told("leave"))
    run.leave("c")
    assert run.wait_exit("c", LEAVE_S) == 1  # what torchrun itself makes of SIGTERM
    for pid in pids(run, "c"):
        run.wait_gone(pid)
    run.poll()
    assert len(run.told("leave")) == leaves + 1


def _a_worker_is_told_to_end(run: Cluster) -> None:
    os.kill(worker(run, "a"), signal.SIGUSR1)
    assert run.wait_exit("a", LEAVE_S) == 0
    for pid in pids(run, "a"):
        run.wait_gone(pid)
    run.poll()
    assert run.told("leave", "a")


@pytest.mark.cold
def test_several_workers_are_refused_once_before_any_starts(tmp_path: Path) -> None:
    flags = ["--rdzv-backend=chaos", "--nproc-per-node=2", "--max-restarts=3"]
    with Cluster(
        SCRIPTS / "train.py", directory=tmp_path / "run", launcher=Torchrun({"a": flags})
    ) as run:
        run.start("a")
        assert run.wait_exit("a", COLD_S) == 1
        said = run.output("a").read_text()
        assert said.count("ConfigError: --nproc-per-node=2: a node has one worker") == 1
        assert "GPU available" not in said
