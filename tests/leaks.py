"""What a test may not leave behind, and how it is found.

Processes are known by a mark in the environment they were started with: a child keeps it when
it is given a session of its own or is adopted by init because its parent was killed, which is
exactly when a leak is easy to miss.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

MARK = "LIGHTNING_CHAOS_TEST_RUN"
GRACE_S = 2.0

# Set by the first import or use of a library and meant to stay.
FOREIGN_VARIABLES = ("PYTEST_", "PL_", "KMP_", "TORCH", "CUDA_", "CUBLAS_")
# tqdm keeps one watcher for all bars, multiprocessing one tracker for all segments.
FOREIGN_THREADS = ("TMonitor",)
FOREIGN_PROCESSES = ("multiprocessing.resource_tracker",)
FOREIGN_SIGNALS = (signal.SIGALRM,)  # pytest-timeout's
IGNORED_FILES = ("__pycache__",)


def mark_this_process() -> None:
    """Mark this process, so that all it starts can be found."""
    os.environ[MARK] = secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process has running, open and lying about, each by a key and for people."""

    things: dict[tuple[str, Any], str]

    @classmethod
    def now(cls) -> Holdings:
        """What there is at this moment."""
        return cls(_processes() | _threads() | _listeners() | _files())

    def new_since(self, before: Holdings) -> dict[tuple[str, Any], str]:
        """What is here and was not there before."""
        return {key: text for key, text in self.things.items() if key not in before.things}


def leaked_since(before: Holdings, grace_s: float = GRACE_S) -> list[str]:
    """What is still left after things have had ``grace_s`` seconds to close; processes are ended.

    Returns:
        One line per leak, for people.
    """
    deadline = time.monotonic() + grace_s
    while (new := Holdings.now().new_since(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for kind, key in new:
        if kind == "process":
            _end(key)
    return sorted(new.values())


def changed_environment(before: dict[str, str]) -> list[str]:
    """Names of variables that differ from ``before``; they are put back."""
    now = dict(os.environ)
    names = [
        name
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not name.startswith(FOREIGN_VARIABLES)
    ]
    for name in names:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
    return [f"environment variable {name} was changed" for name in names]


def signal_handlers() -> dict[int, Any]:
    """The handler of every signal that is ours to set."""
    return {
        number: signal.getsignal(number)
        for number in signal.valid_signals()
        if number not in FOREIGN_SIGNALS
    }


def changed_handlers(before: dict[int, Any]) -> list[str]:
    """Names of signals whose handler differs from ``before``; they are put back."""
    changed = [number for number, now in signal_handlers().items() if now != before[number]]
    for number in changed:
        signal.signal(number, before[number])
    return [f"handler of {signal.Signals(number).name} was changed" for number in changed]


def _processes() -> dict[tuple[str, Any], str]:
    mark, me = os.environ.get(MARK), psutil.Process()
    family = {me.pid}
    found: dict[tuple[str, Any], str] = {}
    for process in sorted(psutil.process_iter(), key=_begun):  # parents before their children
        try:
            if process == me or process.create_time() < me.create_time():
                continue  # none that is older was started by this one
            if process.ppid() in family:
                family.add(process.pid)
            elif process.environ().get(MARK) != mark:
                continue
            command = " ".join(process.cmdline())[:120]
        except psutil.ZombieProcess:
            command = "ended and not waited for"
            if process.pid not in family:  # somebody else's, init's say, to wait for
                continue
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if not any(name in command for name in FOREIGN_PROCESSES):
            found["process", process] = f"process {process.pid}: {command}"
    return found


def _begun(process: psutil.Process) -> tuple[float, int]:
    try:
        return process.create_time(), process.pid
    except psutil.NoSuchProcess:
        return 0.0, process.pid


def _threads() -> dict[tuple[str, Any], str]:
    return {
        ("thread", thread): f"thread {thread.name!r}"  # kept, so that no later one is taken for it
        for thread in threading.enumerate()
        if type(thread).__name__ not in FOREIGN_THREADS
    }


def _listeners() -> dict[tuple[str, Any], str]:
    return {
        ("socket", connection.laddr): "socket that listens on {}:{}".format(*connection.laddr[:2])
        for connection in psutil.Process().net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def _files() -> dict[tuple[str, Any], str]:
    return {
        ("file", path): f"{path.name} in the working directory"
        for path in Path.cwd().iterdir()
        if path.name not in IGNORED_FILES and not path.name.startswith(".")
    }


def _end(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        process.kill()  # not a later one with its pid: psutil sees to that
        process.wait(timeout=GRACE_S)
