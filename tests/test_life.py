"""How nodes come, leave and end: politely, by mistake, all at once, too late, by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_fixtures import BOUND_S, SCRIPTS, Cluster, MakeCluster, await_text, code_of

from lightning_chaos.testing.launch import ColdStart, ForkServer

COMMAND_S = 20.0


def command(run: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """``lightning-chaos`` with these words, where this run's nodes are."""
    return subprocess.run(
        [sys.executable, "-m", "lightning_chaos.cli", *words],
        env=run.command_env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )


def chaos_left(run: Cluster, node: str) -> bool:
    """The others were told before it went: they planned it out, nobody froze."""
    views = [e for e in run.told("view") if node not in e["members"] and e["epoch"] > 1]
    return bool(run.told("leave", node)) and any(f"{node} leaves" in e["reason"] for e in views)


# ---- leaving -----------------------------------------------------------------------------------


def test_the_lead_leaves_at_sigterm_and_another_at_ctrl_c(cluster: MakeCluster) -> None:
    run = cluster()
    run.up("a", "b", "c")
    run.leave("a")
    assert run.wait_exit("a", run.bound_s) == 0
    run.wait_members("b", "c")
    assert chaos_left(run, "a")
    run.interrupt("c")
    assert run.wait_exit("c", run.bound_s) == 1  # as Lightning ends a fit at Ctrl-C
    run.wait_members("b")
    assert chaos_left(run, "c")
    assert not run.told("freeze")
    run.wait_rounds(5)
    run.finish("b")


def test_the_last_node_leaves(cluster: MakeCluster) -> None:
    run = cluster()
    run.up("a")
    run.leave("a")
    assert run.wait_exit("a", run.bound_s) == 0
    run.wait_gone(run.peer_pids("a")[0])


def test_all_leave_at_once(cluster: MakeCluster) -> None:
    run = cluster()
    run.up("a", "b", "c")
    for node in "abc":
        run.leave(node)
    assert [run.wait_exit(node, run.bound_s) for node in "abc"] == [0, 0, 0]
    for node in "abc":
        assert run.told("leave", node)
        run.wait_gone(run.peer_pids(node)[0])


def test_who_stands_by_or_comes_back_leaves_when_it_is_asked_to(cluster: MakeCluster) -> None:
    run = cluster()
    run.up("a", "b")
    run.start("standby", env={"CHAOS_JOIN_AT": "100000"})
    run.wait_told("asks", "standby")
    run.leave("standby")
    assert run.wait_exit("standby", run.bound_s) == 0
    run.kill_peer("b")
    run.wait_told("start", "b", times=2)
    run.leave("b")
    assert run.wait_exit("b", run.bound_s) == 0
    run.wait_members("a")
    run.finish("a")


def test_the_second_signal_ends_at_once(cluster: MakeCluster) -> None:
    run = cluster("--pause", "b=last round")
    run.up("a", "b")
    run.wait_told("pauses", "b")  # its worker is busy: a polite leave would take long
    run.leave("b")
    run.wait_for(lambda _: "once more to end at once" in run.tail("b"), run.bound_s, "b to go")
    assert run.exit_code("b") is None
    run.leave("b")
    assert run.wait_exit("b", run.bound_s) == 128 + signal.SIGTERM
    run.wait_members("a")
    run.finish("a")


EARLY = """
import os, signal
import lightning.pytorch as pl
from lightning.pytorch.demos.boring_classes import BoringModel

class Early(pl.Callback):
    def on_train_start(self, trainer, module):
        os.kill(os.getpid(), signal.SIGTERM)

trainer = pl.Trainer(strategy="chaos", accelerator="cpu", logger=False, callbacks=[Early()])
trainer.fit(BoringModel())
"""


def test_a_signal_before_the_first_round_is_heard(cluster: MakeCluster, tmp_path: Path) -> None:
    script = tmp_path / "early.py"
    script.write_text(EARLY)
    run = cluster(script=script, CHAOS_MIN_MEMBERS="2")
    run.start("a")
    assert run.wait_exit("a", run.bound_s) == 0, run.tail("a", 40)
    run.wait_gone(run.peer_pids("a")[0])


def test_an_error_in_the_users_code_ends_one_node_only(cluster: MakeCluster) -> None:
    run = cluster("--fail-node", "b", "--fail-at", "10")
    run.up("a", "b", "c")
    assert run.wait_exit("b", run.bound_s) == 1
    run.wait_members("a", "c")
    assert "ValueError: a mistake in the user's code" in run.tail("b")
    reasons = [e["reason"] for e in run.told("view") if "b" not in e["members"]]
    assert "a mistake in the user's code" in reasons[-1]
    run.wait_rounds(5)
    run.finish("a", "c")


# ---- coming ------------------------------------------------------------------------------------


def test_three_join_at_once_while_two_train_and_one_at_the_round_it_named(
    cluster: MakeCluster,
) -> None:
    run = cluster()
    run.up("a", "b")
    at = run.round + 15
    run.start("late", env={"CHAOS_JOIN_AT": str(at)})
    run.start("c", "d")
    run.wait_members("a", "b", "c", "d", "late")  # in which order is the machine's choice
    assert run.told("pull", "late")[-1]["round"] >= at
    assert len(run.told("pull")) == 4
    run.finish("a", "b", "c", "d", "late")


def test_a_standby_that_falls_out_still_waits_for_its_round(cluster: MakeCluster) -> None:
    run = cluster("--holds")
    run.hold("a", 5)  # so the round does not come before
    run.up("a")
    at = int(run.wait_told("holds", "a")["step"]) + 5
    run.start("late", env={"CHAOS_JOIN_AT": str(at)})
    run.wait_told("asks", "late")
    run.kill_peer("late")
    run.wait_told("asks", "late", times=2)
    run.let_go("a")
    run.wait_members("a", "late")
    assert len(run.told("start", "late")) == 2
    assert [e["round"] for e in run.told("asks", "late")] == [at, at]
    assert run.told("pull", "late")[-1]["round"] >= at
    run.finish("a", "late")


@pytest.mark.timeout(120)
def test_ten_simultaneous_starts_found_one_cluster(cluster: MakeCluster) -> None:
    run = cluster(CHAOS_MIN_MEMBERS="10")
    run.bound_s = 3 * BOUND_S  # twenty processes
    nodes = [f"n{i}" for i in range(10)]
    run.start(*nodes)
    run.wait_members(*nodes)
    founded = [e for e in run.told("view") if e["reason"] == "founded"]
    assert len(founded) == 1
    assert all(len(e["members"]) == 10 for e in run.told("round"))
    run.finish(*nodes)


def test_the_same_command_in_a_second_terminal_joins_the_first(
    fork_server: ForkServer, tmp_path: Path, runtime_dir: Path
) -> None:
    # What a user has: a script, a runtime directory, and nothing that begins with CHAOS_.
    env = {k: v for k, v in os.environ.items() if not k.startswith("CHAOS_")}
    env |= {"OMP_NUM_THREADS": "1", "XDG_RUNTIME_DIR": str(runtime_dir)}
    outputs = [tmp_path / "one.out", tmp_path / "two.out"]
    words = [str(SCRIPTS / "train.py")]
    nodes = [
        launcher.launch(words, env=env, cwd=tmp_path, output=output)
        for launcher, output in zip((fork_server, ColdStart()), outputs, strict=True)
    ]
    try:
        await_text(outputs[0], "founded run train-")
        await_text(outputs[1], "joined round", 2 * BOUND_S)  # it imports torch
        for node in nodes:
            os.kill(node.pid, signal.SIGTERM)
        assert [code_of(node) for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            if node.poll() is None:
                os.kill(node.pid, signal.SIGKILL)
                code_of(node)


# ---- ending ------------------------------------------------------------------------------------


def test_a_finished_run_tells_latecomers_and_then_is_gone(cluster: MakeCluster) -> None:
    run = cluster("--max-steps", "20", CHAOS_LINGER="10")
    run.up("a", "b")
    run.ended_well("a", "b")
    run.start("late")
    assert run.wait_exit("late", run.bound_s) == 0
    assert "the run finished after round 19. Nothing is left to train." in run.tail("late")
    assert not run.told("fits", "late")
    for node in "ab":
        run.wait_gone(run.peer_pids(node)[0])


def test_a_newcomer_whose_run_finishes_while_it_gets_ready_ends_well(cluster: MakeCluster) -> None:
    run = cluster("--holds", "--max-steps", "10", CHAOS_LINGER="60")
    run.hold("a", 5)
    run.hold("late", -1)
    run.start("a")
    run.wait_told("holds", "a")
    run.start("late")
    run.wait_told("holds", "late")
    run.let_go("a")
    run.ended_well("a")
    run.let_go("late")
    assert run.wait_exit("late", run.bound_s) == 0, run.tail("late")
    assert "Nothing is left to train." in run.tail("late")
    run.kill_peer("a")  # nobody else comes that it would have to be told


def test_status_shows_a_live_run_and_stop_ends_it(cluster: MakeCluster) -> None:
    run = cluster()
    run.up("a", "b")
    status = command(run, "status")
    assert status.returncode == 0, status.stderr
    for words in (f"run {run.run}", "epoch 3", "a", "lead", "b", "member"):
        assert words in status.stdout
    stop = command(run, "stop")
    assert stop.returncode == 0, stop.stderr
    assert "asked a, b to end" in stop.stdout
    run.ended_well("a", "b")
    assert run.told("final", "a")[0]["round"] == run.told("final", "b")[0]["round"]


@pytest.mark.parametrize("word", ["status", "stop"])
def test_commands_say_when_there_is_no_run(cluster: MakeCluster, word: str) -> None:
    done = command(cluster(), word)
    assert done.returncode == 2
    assert "no node of run" in done.stderr
