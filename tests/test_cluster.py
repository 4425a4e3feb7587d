"""A cluster of real processes: signals reach whom they should, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from cluster_fixtures import BOUND_S, code_of

from lightning_chaos.testing.cluster import LocalCluster
from lightning_chaos.testing.launch import ColdStart, ForkServer

pytestmark = pytest.mark.alone

GRACE_S = 0.3

# A worker as far as a cluster can tell: it logs its start and has a stubborn peer process.
SCRIPT = """
import os, signal, subprocess, sys, time
from pathlib import Path
from lightning_chaos.monitor.runlog import RunLog

node = os.environ["CHAOS_NODE"]
log = RunLog(Path(os.environ["CHAOS_LOG"]) / f"{node}.jsonl", node)
if "--crash" in sys.argv:
    raise SystemExit("it broke on purpose")
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
peer = subprocess.Popen(sleep, start_new_session=True)
def leave(*_):
    log.write("leave", round=1)
    sys.exit(3)
signal.signal(signal.SIGTERM, leave)
threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else 0
modules = [m for m in ("torch", "lightning") if m in sys.modules]
print("ready", node)
log.write("start", pid=os.getpid(), peer_pid=peer.pid, run=os.environ["CHAOS_RUN"],
          args=sys.argv[1:], modules=modules, threads=threads, cwd=os.getcwd(),
          extra=os.environ.get("EXTRA"))
time.sleep(60)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(SCRIPT)
    return path


def started(cluster: LocalCluster, *nodes: str) -> dict[str, tuple[int, int]]:
    """Pids of worker and peer of each node, once all have started."""
    cluster.wait_for(
        lambda events: set(nodes) <= {e.node for e in events if e.event == "start"},
        BOUND_S,
        f"{nodes} to start",
    )
    return {e.node: (e["pid"], e["peer_pid"]) for e in cluster.events if e.event == "start"}


def gone(pid: int) -> bool:
    """True once the process does nothing any more; by itself it would go on for a minute."""
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def test_signals_reach_worker_peer_or_both_and_nothing_is_left(script: Path) -> None:
    with LocalCluster(script, args=["--x"], grace_s=GRACE_S, env={"EXTRA": "e"}) as cluster:
        cluster.start("a", "b", "c", "d")
        pids = started(cluster, "a", "b", "c", "d")
        (first, *others) = [e for e in cluster.events if e.event == "start"]
        assert first["args"] == ["--x"]
        assert first["extra"] == "e"
        assert {e["run"] for e in (first, *others)} == {cluster.run}

        cluster.kill("a")
        assert cluster.wait_exit("a", BOUND_S) == -signal.SIGKILL
        assert gone(pids["a"][1])

        cluster.kill_peer("b")
        assert gone(pids["b"][1])
        assert cluster.exit_code("b") is None

        cluster.kill_worker("c")
        assert cluster.wait_exit("c", BOUND_S) == -signal.SIGKILL
        assert psutil.pid_exists(pids["c"][1])

        cluster.leave("d")
        assert cluster.wait_exit("d", BOUND_S) == 3
        assert cluster.events[-1].event == "leave"
        directory = cluster.directory
    assert all(gone(pid) for pair in pids.values() for pid in pair)
    assert not directory.exists()


def test_what_is_waited_for_in_vain_is_told_with_what_the_nodes_printed(script: Path) -> None:
    with LocalCluster(script, grace_s=GRACE_S) as cluster:
        cluster.start("a")
        started(cluster, "a")
        with pytest.raises(TimeoutError, match=r"(?s)in vain for: a miracle.*a runs.*ready a"):
            cluster.wait_for(lambda events: False, 0.2, "a miracle")


def test_waiting_ends_at_once_when_no_node_runs_any_more(script: Path, tmp_path: Path) -> None:
    with LocalCluster(script, args=["--crash"], directory=tmp_path / "kept") as cluster:
        cluster.start("a")
        with pytest.raises(TimeoutError, match=r"(?s)every node has ended.*it broke on purpose"):
            cluster.wait_for(lambda events: False, BOUND_S, "a miracle")
        with pytest.raises(ValueError, match="started before"):
            cluster.start("a")
    assert "it broke on purpose" in (tmp_path / "kept" / "a.out").read_text()


def test_forked_nodes_end_also_with_a_server_that_is_killed(script: Path) -> None:
    with (
        ForkServer() as server,
        LocalCluster(script, args=[], launcher=server, grace_s=GRACE_S) as cluster,
    ):
        cluster.start("a", "b")
        pids = started(cluster, "a", "b")
        process = psutil.Process(pids["a"][0]).parent()
        assert process is not None
        process.kill()
        assert all(gone(worker) for worker, _ in pids.values())


def test_forked_nodes_are_real_processes_that_have_torch_and_end_with_their_server(
    script: Path,
) -> None:
    server = ForkServer()
    with LocalCluster(script, args=["--x"], launcher=server, grace_s=GRACE_S) as cluster:
        cluster.start("a", "b", "c")
        pids = started(cluster, "a", "b", "c")
        starts = {e.node: e for e in cluster.events if e.event == "start"}
        assert starts["a"]["modules"] == ["torch", "lightning"]
        assert starts["a"]["threads"] == 1
        assert starts["a"]["args"] == ["--x"]
        assert starts["a"]["cwd"] == str(cluster.directory)
        assert starts["b"]["run"] == cluster.run
        assert cluster.tail("b") == "ready b"
        cluster.kill("a")
        assert cluster.wait_exit("a", BOUND_S) == -signal.SIGKILL
        cluster.leave("b")
        assert cluster.wait_exit("b", BOUND_S) == 3
        server.close()
        assert gone(pids["c"][0])
        assert cluster.exit_code("c") == -signal.SIGKILL
    assert all(gone(pid) for pair in pids.values() for pid in pair)
    with pytest.raises(RuntimeError, match="fork server"):
        server.ask({"poll": 1})


def test_who_was_interrupted_while_it_asked_leaves_no_answer_for_the_next(
    fork_server: ForkServer, tmp_path: Path
) -> None:
    """As a test is that takes too long, somewhere in a wait."""
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit(4)")
    process = fork_server.launch(
        [str(script)], env=dict(os.environ), cwd=tmp_path, output=tmp_path / "out"
    )
    fork_server._requests.write(json.dumps({"poll": process.pid, "number": -1}) + "\n")
    fork_server._requests.flush()
    deadline = time.monotonic() + 20.0
    while (code := fork_server.ask({"poll": process.pid})["code"]) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert code == 4


LATE = """
import atexit, sys, threading
def late(word):
    threading.main_thread().join()
    print(word)
atexit.register(print, "registered")
threading.Thread(target=late, args=["a thread"]).start()
sys.stdout.write("no end of line, ")
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (LATE, 0),
        (LATE + "raise SystemExit", 0),
        (LATE + "sys.exit(3)", 3),
        (LATE + "sys.exit('it will not')", 1),
        (LATE + "raise ValueError('it broke')", 1),
        (LATE + "raise KeyboardInterrupt", -signal.SIGINT),
    ],
)
def test_a_forked_process_ends_as_one_of_a_new_interpreter(
    fork_server: ForkServer, tmp_path: Path, end: str, code: int
) -> None:
    script = tmp_path / "ends.py"
    script.write_text(end)
    said = []
    for name, launcher in (("forked", fork_server), ("cold", ColdStart())):
        output = tmp_path / name
        process = launcher.launch([str(script)], env=dict(os.environ), cwd=tmp_path, output=output)
        assert code_of(process) == code
        lines = output.read_text().splitlines()
        said.append(sorted(line for line in lines if not line.startswith(" ")))  # no frames
    assert said[0] == said[1]
