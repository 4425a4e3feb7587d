"""Clusters of real processes, and what tests ask of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import psutil
import pytest

from lightning_chaos import cli
from lightning_chaos.demo.checks import check_digests, check_once, digests, stable_rounds
from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.peer.discovery import DiscoveryDir
from lightning_chaos.testing.cluster import POLL_S, LocalCluster
from lightning_chaos.testing.launch import ForkServer, Launcher, Running
from lightning_chaos.visit import ask_to_stop

SCRIPTS = Path(__file__).parent / "scripts"
# Generous: a bound only says when to give up.  Everything below takes a fraction of it.
BOUND_S = 20.0
# One process does, one after the other, what several did at once.
REPLAY_S = 60.0

T = TypeVar("T")


class Cluster(LocalCluster):
    """A cluster that knows what tests wait for and what every run must have kept to."""

    bound_s = BOUND_S
    """Seconds after which a wait is given up."""

    # ---- what has happened -----------------------------------------------------------------

    def told(self, event: str, node: str = "") -> list[LogEvent]:
        """All events of that kind so far, of one node or of all."""
        return [e for e in self.events if e.event == event and node in ("", e.node)]

    @property
    def generation(self) -> int:
        """The newest one: what is older is past."""
        return max((int(e["generation"]) for e in self.told("view")), default=0)

    def now(self, event: str) -> list[LogEvent]:
        """Views or rounds of the newest generation."""
        generation = self.generation
        return [e for e in self.told(event) if e["generation"] == generation]

    @property
    def members(self) -> list[str]:
        """Members of the newest view that a worker has used, oldest first."""
        views = self.now("view")
        return list(max(views, key=lambda e: e["epoch"])["members"]) if views else []

    @property
    def round(self) -> int:
        """The last round known to be stable."""
        return max((int(e["round"]) for e in self.now("round")), default=-1)

    # ---- waiting ---------------------------------------------------------------------------

    def wait_told(self, event: str, node: str = "", *, times: int = 1) -> LogEvent:
        """Wait for an event of that kind; returns the latest one."""
        self.wait_for(
            lambda _: len(self.told(event, node)) >= times, self.bound_s, f"{node} to tell {event}"
        )
        return self.told(event, node)[-1]

    def wait_told_that(self, predicate: Callable[[LogEvent], bool], what: str) -> LogEvent:
        """Wait for the first event for which the predicate is true."""
        return self.wait_for(
            lambda events: next((e for e in events if predicate(e)), None), self.bound_s, what
        )  # type: ignore[return-value]

    def wait_members(self, *nodes: str) -> None:
        """Wait until exactly these nodes, as they started last, have finished a round together."""

        def together(_: Sequence[LogEvent]) -> bool:
            if set(self.members) != set(nodes):
                return False
            newest = max(self.now("view"), key=lambda e: int(e["epoch"]))
            started = {e.node: e["uid"] for e in self.told("start")}
            if set(newest["uids"]) != {started.get(node) for node in nodes}:
                return False  # an older view, of one that is about to come back
            return any(e["epoch"] >= newest["epoch"] for e in self.now("round"))

        self.wait_for(together, self.bound_s, f"a round of {', '.join(nodes)}")

    def wait_worked(self, *nodes: str) -> None:
        """Wait until exactly these nodes have finished a round, whatever has become of them."""

        def worked(_: Sequence[LogEvent]) -> bool:
            epochs = {e["epoch"] for e in self.now("view") if set(e["members"]) == set(nodes)}
            return any(e["epoch"] in epochs for e in self.now("round"))

        self.wait_for(worked, self.bound_s, f"a first round of {', '.join(nodes)}")

    def wait_rounds(self, count: int) -> None:
        """Wait until that many more rounds are stable."""
        last = self.round + count
        self.wait_for(lambda _: self.round >= last, self.bound_s, f"round {last}")

    def peer_pids(self, node: str) -> list[int]:
        """Process ids of the node's peers, one after another."""
        return [int(e["peer_pid"]) for e in self.told("start", node)]

    def wait_gone(self, pid: int) -> None:
        """Wait until that process has ended."""
        _await(lambda: _gone(pid) or None, self.bound_s, f"process {pid} to end")

    def up(self, *nodes: str, env: Mapping[str, str] | None = None) -> None:
        """Start these nodes one after another, so that their ages follow the names' order.

        What the script does to them in its first rounds may have begun by the time this returns.
        """
        for place, node in enumerate(nodes, 1):
            self.start(node, env={"CHAOS_MIN_MEMBERS": str(len(nodes)), **(env or {})})
            if place == 1:
                self.wait_told("start", node)
            else:
                self.wait_for(
                    lambda _, n=node: n in self.members or self.told("pull", n),  # type: ignore[misc]
                    self.bound_s,
                    f"{node} to join",
                )
        self.wait_worked(*nodes)

    # ---- where nodes stand -----------------------------------------------------------------

    def hold(self, node: str, step: int = 0) -> None:
        """Have a node of ``train.py --holds`` stand still in that step, or its next one if later.

        No member gets beyond that.  If it stands still in an earlier step, it goes on to this one.
        """
        draft = self.log_dir / f"draft.{node}"
        draft.write_text(str(step))
        draft.rename(self._order(node))

    def let_go(self, node: str) -> None:
        """It need not stand still any more."""
        self._order(node).unlink()

    def _order(self, node: str) -> Path:
        return self.log_dir / f"hold.{node}"

    # ---- the end ---------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the run to end, as ``lightning-chaos stop`` does."""
        top = Path(self.command_env()["XDG_RUNTIME_DIR"]) / "lightning-chaos"
        asyncio.run(ask_to_stop(DiscoveryDir(self.run, top).live(), self.run, "the test is over"))

    def finish(self, *nodes: str) -> None:
        """End the run: these nodes end well, with the same state, and leave no process."""
        self.stop()
        self.ended_well(*nodes)
        for node in nodes:
            assert not psutil.pid_exists(self.peer_pids(node)[-1])

    def ended_well(self, *nodes: str) -> None:
        """These nodes end by themselves, with one state and every sample counted once."""
        for node in nodes:
            code = self.wait_exit(node, self.bound_s)
            assert code == 0, f"{node} ended with {code}:\n{self.tail(node, 40)}"
        _, failures = stable_rounds(self.now("round"))
        failures += check_digests(digests(self.events), nodes)
        failures += check_once(self._history())[1]
        assert not failures, failures

    def _history(self) -> dict[int, LogEvent]:
        """The rounds behind the last state, also those of generations before; lost ones are not."""
        kept = {int(e["generation"]): int(e["round"]) for e in self.told("restart")}
        return {
            int(e["trained"]): e
            for e in self.told("round")
            if all(e["trained"] <= kept[later] for later in kept if later > e["generation"])
        }


def _gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class MakeCluster(Protocol):
    """Makes a cluster that the test's end closes."""

    def __call__(self, *args: str, launcher: Launcher = ..., **env: str) -> Cluster:
        """A cluster on ``scripts/train.py`` with this command line and these variables."""
        ...


def code_of(process: Running, timeout_s: float = BOUND_S) -> int:
    """Exit code of a process once it has ended."""
    return _await(process.poll, timeout_s, f"process {process.pid} to end")


def replayed(
    launcher: Launcher, logs: Path, *args: str, timeout_s: float = REPLAY_S
) -> tuple[int, str]:
    """Exit code and output of ``lightning-chaos replay``, run beside the logs."""
    output = logs.parent / "replay.out"
    process = launcher.launch(
        [cli.__file__, "replay", str(logs), *args],
        env=dict(os.environ),
        cwd=logs.parent,
        output=output,
    )
    return code_of(process, timeout_s), output.read_text()


def await_text(output: Path, text: str, timeout_s: float = BOUND_S) -> None:
    """Wait until a process has printed that."""

    def printed() -> bool | None:
        return (output.exists() and text in output.read_text(errors="replace")) or None

    _await(printed, timeout_s, f"{output.name} to say {text!r}")


def _await(look: Callable[[], T | None], timeout_s: float, what: str) -> T:
    deadline = time.monotonic() + timeout_s
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(POLL_S)
    return found


@pytest.fixture
def cluster(fork_server: ForkServer, tmp_path: Path) -> Iterator[MakeCluster]:
    """Clusters of forked nodes that do not linger; logs stay in the test's directory."""
    with contextlib.ExitStack() as stack:
        count = 0

        def make(
            *args: str,
            script: Path = SCRIPTS / "train.py",
            launcher: Launcher = fork_server,
            **env: str,
        ) -> Cluster:
            nonlocal count
            count += 1
            return stack.enter_context(
                Cluster(
                    script,
                    args=args,
                    directory=tmp_path / f"run{count}",
                    env={"CHAOS_LINGER": "0", **env},
                    launcher=launcher,
                )
            )

        yield make
