"""A run of real processes on this machine, with signals to hurt it and its logs to watch it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from lightning_chaos.monitor.runlog import LogEvent, LogTail
from lightning_chaos.testing.launch import ColdStart, Launcher, Running

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
        self._processes: dict[str, Running] = {}
        self._peers: dict[str, list[psutil.Process]] = {}
        self.events: list[LogEvent] = []
        """Everything the nodes have logged, as read by :meth:`poll`."""

    # ---- nodes -----------------------------------------------------------------------------

    @property
    def nodes(self) -> list[str]:
        """Names of all nodes that were started."""
        return [*self._processes]

    def start(self, *nodes: str, env: Mapping[str, str] | None = None) -> None:
        """Start these nodes at once, each a process of its own.

        Args:
            nodes: names, not used in this cluster before.
            env: more variables for these nodes.

        Raises:
            ValueError: a node of that name was started before.
        """
        for node in nodes:
            if node in self._processes:
                raise ValueError(f"node {node} was started before; use another name")
            self._processes[node] = self._launcher.launch(
                [str(self._script), *self._args],
                env=self._env | {"CHAOS_NODE": node} | dict(env or {}),
                cwd=self._cwd,
                output=self.output(node),
            )

    def command_env(self) -> dict[str, str]:
        """Environment in which ``lightning-chaos`` commands find this run."""
        return dict(self._env)

    def exit_code(self, node: str) -> int | None:
        """Exit code of the node's worker (negative: a signal), None while it runs."""
        return self._processes[node].poll()

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
        peers = self._peers_of(node)
        self._signal(node, signal.SIGSTOP)
        for sign in (signal.SIGSTOP, signal.SIGKILL):
            for peer in peers:
                _signal(peer, sign)
        self._signal(node, signal.SIGKILL)

    def kill_worker(self, node: str) -> None:
        """SIGKILL to the training process alone."""
        self._signal(node, signal.SIGKILL)

    def kill_peer(self, node: str) -> None:
        """SIGKILL to the control-plane process alone."""
        for peer in self._peers_of(node):
            _signal(peer, signal.SIGKILL)

    def suspend(self, node: str, *, worker: bool = True, peer: bool = True) -> None:
        """Stop worker and peer as a laptop's lid would; :meth:`resume` lets them go on."""
        for process in self._peers_of(node) if peer else []:
            _signal(process, signal.SIGSTOP)
        if worker:
            self._signal(node, signal.SIGSTOP)

    def resume(self, node: str) -> None:
        """Let a suspended node go on."""
        self._signal(node, signal.SIGCONT)
        for peer in self._peers_of(node):
            _signal(peer, signal.SIGCONT)

    def interrupt(self, node: str) -> None:
        """SIGINT to the training process, as Ctrl-C: it leaves politely."""
        self._signal(node, signal.SIGINT)

    def leave(self, node: str) -> None:
        """SIGTERM to the training process: it leaves politely."""
        self._signal(node, signal.SIGTERM)

    # ---- watching --------------------------------------------------------------------------

    def poll(self) -> list[LogEvent]:
        """What the nodes have logged since the last call."""
        new = self._tail.poll()
        for event in new:
            if event.event == "start":
                self._know_peer(event.node, int(event["peer_pid"]))
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
            ended = all(p.poll() is not None for p in self._processes.values())
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
        for node in self._processes:
            self._peers_of(node)
            self.leave(node)
        _wait_while(self._any_running, self._grace_s)
        for node in self._processes:
            self._signal(node, signal.SIGKILL)
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
        return any(p.poll() is None for p in self._processes.values())

    def _signal(self, node: str, sign: signal.Signals) -> None:
        process = self._processes[node]
        if process.poll() is None:
            os.kill(process.pid, sign)

    def _know_peer(self, node: str, pid: int) -> None:
        known = self._peers.setdefault(node, [])
        if all(p.pid != pid for p in known):
            with contextlib.suppress(psutil.NoSuchProcess):
                known.append(psutil.Process(pid))

    def _peers_of(self, node: str) -> list[psutil.Process]:
        """The node's peer processes: children of its worker, or known from its log."""
        if self._processes[node].poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self._processes[node].pid).children(recursive=True):
                    self._know_peer(node, child.pid)
        return [p for p in self._peers.get(node, []) if _runs(p)]

    def _end_peers(self) -> None:
        peers = [p for node in self._processes for p in self._peers_of(node)]
        _wait_while(lambda: any(_runs(p) for p in peers), self._grace_s)
        for peer in peers:
            _signal(peer, signal.SIGKILL)
        _wait_while(lambda: any(_runs(p) for p in peers), KILL_WAIT_S)

    def _story(self) -> str:
        parts = []
        for node in self._processes:
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


def _runs(process: psutil.Process) -> bool:
    """True while that very process (not a later one with its pid) does something."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, sign: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(sign)
