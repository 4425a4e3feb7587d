"""Two ways to start a worker process: cold, or forked from a process that has imported torch."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lightning_chaos.testing.lab.wan.enter import Host

# Covers the server's own import of torch and Lightning, which the first request waits for.
REPLY_TIMEOUT_S = 120.0
CLOSE_TIMEOUT_S = 10.0


class Running(Protocol):
    """A process that was started and not waited for yet."""

    @property
    def pid(self) -> int:
        """Process id, not reused before :meth:`poll` has said that the process ended."""
        ...

    def poll(self) -> int | None:
        """Exit code (negative: the signal that killed it), None while it runs."""
        ...


class Launcher(Protocol):
    """Starts Python scripts as processes of their own session."""

    def launch(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: Path,
        host: Host | None = None,
    ) -> Running:
        """Start ``python command...``; stdout and stderr are appended to ``output``.

        Args:
            command: script and arguments.
            env: the whole environment.
            cwd: working directory.
            output: file, appended to.
            host: a host of the lab to start it on, None for this machine.
        """
        ...


class ColdStart:
    """A new interpreter for each process, as a user would start it."""

    def launch(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: Path,
        host: Host | None = None,
    ) -> Running:
        """See :class:`Launcher`."""
        whole = [sys.executable, *command]
        with output.open("ab") as file:
            return subprocess.Popen(
                host.command(whole) if host else whole,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )


class ForkServer:
    """Forks processes from one that has imported torch and Lightning: saves seconds each.

    They are real processes with their own pids, sessions, environment and output, and end as any
    other, except that nothing is taken to pieces first: what only ``__del__`` does is left undone.
    Variables that libraries read while they are imported (``OMP_NUM_THREADS``) are the server's.
    One server may serve many clusters, one after another or together.

    Args:
        env: the server's own environment; None for this process's, with one thread per worker if
            that says nothing else (said to a forked process, it would come too late).
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lightning_chaos.testing.forkserver", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env={"OMP_NUM_THREADS": "1", **os.environ} if env is None else dict(env),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        ours.settimeout(REPLY_TIMEOUT_S)
        self._socket = ours
        # Two: one for both would forget what it has read ahead when it writes.
        self._requests = ours.makefile("w", encoding="utf-8")
        self._answers = ours.makefile("r", encoding="utf-8")
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def launch(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: Path,
        host: Host | None = None,
    ) -> Running:
        """See :class:`Launcher`."""
        job = {
            "argv": [*command],
            "env": dict(env),
            "cwd": str(cwd),
            "output": str(output),
            "host": host.words if host else None,
        }
        return _Forked(self, int(self.ask(job)["pid"]))

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request to the server and its answer.

        Raises:
            RuntimeError: the server is gone.
        """
        with self._lock:
            number = next(self._numbers)
            try:
                self._requests.write(json.dumps({**request, "number": number}) + "\n")
                self._requests.flush()
                while answer := self._answers.readline():
                    reply: dict[str, Any] = json.loads(answer)
                    if reply.pop("number") == number:  # who asked before may have been interrupted
                        return reply
            except (OSError, ValueError) as error:
                raise RuntimeError(f"the fork server does not answer: {error}") from error
        raise RuntimeError("the fork server has ended")

    def close(self) -> None:
        """End the server; it kills the processes it started that still run.  Idempotent."""
        for stream in (self._requests, self._answers):
            with contextlib.suppress(OSError):  # the server is gone already
                stream.close()
        self._socket.close()
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Forked:
    """A process that the fork server started and reaps."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            try:
                self._code = self._server.ask({"poll": self.pid})["code"]
            except RuntimeError:
                self._code = -signal.SIGKILL  # it ended with its server
        return self._code
