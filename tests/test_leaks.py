"""The leak police finds what a careless test leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

import leaks
import psutil
import pytest

HERE = "print('here', flush=True);"
SLEEP = "import time; time.sleep(60)"


def test_nothing_is_found_where_nothing_is_left() -> None:
    before = leaks.Holdings.now()
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    assert leaks.leaked_since(before, grace_s=0) == []


def test_an_orphan_in_a_session_of_its_own_is_found_and_ended() -> None:
    before = leaks.Holdings.now()
    # Its parent waits for its word: one that is still becoming a program has no environment yet.
    start = (
        "import subprocess, sys;"
        f"orphan = subprocess.Popen([sys.executable, '-c', {HERE + SLEEP!r}],"
        "start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL);"
        "orphan.stdout.readline();"
        "print(orphan.pid)"
    )
    parent = subprocess.run([sys.executable, "-c", start], check=True, stdout=subprocess.PIPE)
    orphan = int(parent.stdout)
    (found,) = leaks.leaked_since(before, grace_s=0)
    assert found.startswith(f"process {orphan}:")
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE


def test_a_child_that_nobody_waited_for_is_found() -> None:
    before = leaks.Holdings.now()
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    found = leaks.Holdings.now().new_since(before)
    assert list(found.values()) == [f"process {child.pid}: ended and not waited for"]
    child.wait()


def test_threads_and_listening_sockets_are_found() -> None:
    before = leaks.Holdings.now()
    done = threading.Event()
    thread = threading.Thread(target=done.wait, args=(30,), name="careless")
    thread.start()
    with socket.create_server(("127.0.0.1", 0)) as door:
        found = leaks.leaked_since(before, grace_s=0)
        assert found == [
            f"socket that listens on 127.0.0.1:{door.getsockname()[1]}",
            "thread 'careless'",
        ]
    done.set()
    thread.join()
    assert leaks.leaked_since(before, grace_s=0) == []


def test_variables_and_handlers_are_found_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAOS_KEPT", "old")
    environment, handlers = dict(os.environ), leaks.signal_handlers()
    os.environ["CHAOS_KEPT"] = "new"
    os.environ["CHAOS_ADDED"] = "1"
    signal.signal(signal.SIGUSR2, lambda *_: None)
    assert leaks.changed_environment(environment) == [
        "environment variable CHAOS_ADDED was changed",
        "environment variable CHAOS_KEPT was changed",
    ]
    assert leaks.changed_handlers(handlers) == ["handler of SIGUSR2 was changed"]
    assert dict(os.environ) == environment
    assert leaks.signal_handlers() == handlers


def test_every_test_has_a_runtime_directory_of_its_own(runtime_dir: os.PathLike[str]) -> None:
    assert os.environ["XDG_RUNTIME_DIR"] == str(runtime_dir)
    assert os.stat(runtime_dir).st_mode & 0o777 == 0o700
    assert not os.listdir(runtime_dir)
