"""A run of real processes on this machine, with signals to hurt it and its logs to watch it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from lightning_chaos.monitor.runlog import LogEvent, LogTail
from lightning_chaos.testing.launch import ColdStart, Launcher
from lightning_chaos.testing.processes import Processes

T = TypeVar("T")

POLL_S = 0.02
# A killed process goes at once unless the kernel itself is stuck.
KILL_WAIT_S = 5.0
TAIL_LINES = 15


class LocalCluster:
    """Nodes of one run on this machine: a script started once per node.

    Every cluster has a run id, a discovery directory and a log directory of its own, and each
    worker one thread unless ``OMP_NUM_THREADS`` says otherwise.  Use it as a context manager:
    at its end no process of it is left.

    Args:
        script: Python file that every node runs.
        args: its command line.
        directory: where logs (``logs/<node>.jsonl``) and output (``<node>.out``) go and stay;
            None for a temporary directory that :meth:`close` removes.
        env: variables for every node, over this process's own without its ``CHAOS_*``.
        cwd: working directory of the nodes, None for the cluster's directory.
        launcher: how processes start, None for a new interpreter each.
        grace_s: seconds that workers, and then peers, have to end by themselves at the end.
    """

    def __init__(
        self,
        script: Path,
        *,
        args: Sequence[str] = (),
        directory: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        launcher: Launcher | None = None,
        grace_s: float = 3.0,
    ) -> None:
        self.run = f"local-{uuid.uuid4().hex[:12]}"
        self._script = script.resolve()
        self._args = [*args]
        self._launcher = launcher or ColdStart()
        self._grace_s = grace_s
        # The discovery directory holds no big files but must have a short path of its own.
        self._runtime = Path(tempfile.mkdtemp(prefix="chaos-"))
        self._temporary = directory is None
        self.directory = (self._runtime / "run" if directory is None else directory).resolve()
        self.log_dir = self.directory / "logs"
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self._cwd = cwd or self.directory
        self._env = self._base_env() | dict(env or {})
        self._tail = LogTail(self.log_dir)
        self._nodes: dict[str, Processes] = {}
        self.events: list[LogEvent] = []
        """Everything the nodes have logged, as read by :meth:`poll`."""

    # ---- nodes -----------------------------------------------------------------------------

    @property
    def nodes(self) -> list[str]:
        """Names of all nodes that were started."""
        return [*self._nodes]

    def start(self, *nodes: str, env: Mapping[str, str] | None = None) -> None:
        """Start these nodes at once, each a process of its own.

        Args:
            nodes: names, not used in this cluster before.
            env: more variables for these nodes.

        Raises:
            ValueError: a node of that name was started before.
        """
        for node in nodes:
            if node in self._nodes:
                raise ValueError(f"node {node} was started before; use another name")
            worker = self._launcher.launch(
                [str(self._script), *self._args],
                env=self._env | {"CHAOS_NODE": node} | dict(env or {}),
                cwd=self._cwd,
                output=self.output(node),
            )
            self._nodes[node] = Processes(worker)

    def command_env(self) -> dict[str, str]:
        """Environment in which ``lightning-chaos`` commands find this run."""
        return dict(self._env)

    def exit_code(self, node: str) -> int | None:
        """Exit code of the node's worker (negative: a signal), None while it runs."""
        return self._nodes[node].exit_code

    def output(self, node: str) -> Path:
        """File with what the node's processes printed."""
        return self.directory / f"{node}.out"

    def tail(self, node: str, lines: int = TAIL_LINES) -> str:
        """The last lines the node's processes printed."""
        try:
            text = self.output(node).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    # ---- what happens to them --------------------------------------------------------------

    def kill(self, node: str) -> None:
        """End worker and peer as a power failure would: none gets to say a last word."""
        self._nodes[node].kill()

    def kill_worker(self, node: str) -> None:
        """SIGKILL to the training process alone."""
        self._nodes[node].signal_worker(signal.SIGKILL)

    def kill_peer(self, node: str) -> None:
        """SIGKILL to the control-plane process alone."""
        self._nodes[node].signal_peers(signal.SIGKILL)

    def suspend(self, node: str, *, worker: bool = True, peer: bool = True) -> None:
        """Stop worker and peer as a laptop's lid would; :meth:`resume` lets them go on."""
        if peer:
            self._nodes[node].signal_peers(signal.SIGSTOP)
        if worker:
            self._nodes[node].signal_worker(signal.SIGSTOP)

    def resume(self, node: str) -> None:
        """Let a suspended node go on."""
        self._nodes[node].signal_worker(signal.SIGCONT)
        self._nodes[node].signal_peers(signal.SIGCONT)

    def interrupt(self, node: str) -> None:
        """SIGINT to the training process, as Ctrl-C: it leaves politely."""
        self._nodes[node].signal_worker(signal.SIGINT)

    def leave(self, node: str) -> None:
        """SIGTERM to the training process: it leaves politely."""
        self._nodes[node].signal_worker(signal.SIGTERM)

    # ---- watching --------------------------------------------------------------------------

    def poll(self) -> list[LogEvent]:
        """What the nodes have logged since the last call."""
        new = self._tail.poll()
        for event in new:
            if event.event == "start" and event.node in self._nodes:
                self._nodes[event.node].know_peer(int(event["peer_pid"]))
        self.events += new
        return new

    def wait_for(
        self, predicate: Callable[[Sequence[LogEvent]], T], timeout_s: float, what: str
    ) -> T:
        """Wait until the events say so.

        Args:
            predicate: called with all events so far; a true value ends the wait.
            timeout_s: seconds.
            what: what is waited for, for the error.

        Returns:
            The predicate's value.

        Raises:
            TimeoutError: it did not come true in time, or no node runs any more; shows what
                the nodes printed last.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            ended = not self._any_running()
            self.poll()
            if value := predicate(self.events):
                return value
            if ended:
                raise TimeoutError(f"every node has ended before: {what}\n{self._story()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout_s:g} s in vain for: {what}\n{self._story()}")
            time.sleep(POLL_S)

    def wait_exit(self, node: str, timeout_s: float) -> int:
        """Wait until the node's worker has ended; returns its exit code.

        Raises:
            TimeoutError: it still runs after ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while (code := self.exit_code(node)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{node} did not end within {timeout_s:g} s\n{self._story()}")
            time.sleep(POLL_S)
        self.poll()
        return code

    # ---- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """End everything: SIGTERM, ``grace_s``, SIGKILL; then the peers.  Idempotent."""
        self.poll()
        for processes in self._nodes.values():
            processes.look()
            processes.signal_worker(signal.SIGTERM)
        _wait_while(self._any_running, self._grace_s)
        for processes in self._nodes.values():
            processes.signal_worker(signal.SIGKILL)
        _wait_while(self._any_running, KILL_WAIT_S)
        self.poll()
        self._end_peers()
        shutil.rmtree(self._runtime, ignore_errors=True)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- inside ----------------------------------------------------------------------------

    def _base_env(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("CHAOS_")}
        env.setdefault("OMP_NUM_THREADS", "1")
        return env | {
            "PYTHONUNBUFFERED": "1",
            "XDG_RUNTIME_DIR": str(self._runtime),
            "CHAOS_RUN": self.run,
            "CHAOS_LOG": str(self.log_dir),
        }

    def _any_running(self) -> bool:
        return any(p.exit_code is None for p in self._nodes.values())

    def _any_peer(self) -> bool:
        return any(p.any_peer for p in self._nodes.values())

    def _end_peers(self) -> None:
        _wait_while(self._any_peer, self._grace_s)
        for processes in self._nodes.values():
            processes.signal_peers(signal.SIGKILL)
        _wait_while(self._any_peer, KILL_WAIT_S)

    def _story(self) -> str:
        parts = []
        for node in self._nodes:
            last = [f"{e.event} {e.fields}" for e in self.events if e.node == node][-3:]
            code = self.exit_code(node)
            state = "runs" if code is None else f"ended with {code}"
            parts.append(_indented(f"--- {node} {state}; last events:", last))
            parts.append(_indented(f"--- {node} printed last:", self.tail(node).splitlines()))
        return "\n".join(parts)


def _indented(title: str, lines: Iterable[str]) -> str:
    return "\n".join([title, *(f"    {line[:300]}" for line in lines)])


def _wait_while(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while condition() and time.monotonic() < deadline:
        time.sleep(POLL_S)
