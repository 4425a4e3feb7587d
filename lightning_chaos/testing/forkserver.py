"""The process behind :class:`lightning_chaos.testing.launch.ForkServer`.

Reads one JSON object per line from a socket: a job to fork, answered with ``{"pid"}``, or
``{"poll": pid}``, answered with ``{"code"}`` (null while it runs); an answer has the ``number`` of
its request.  Ends with its socket and then kills what it started; if it is killed itself, the
kernel does so (on Linux).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import os
import runpy
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

from lightning_chaos.testing.ending import end_with
from lightning_chaos.testing.lab.wan.enter import enter


def main(fd: int) -> list[str] | None:
    """Serve until the socket closes; returns twice, like fork.

    Returns:
        None in the server; in each forked process the command (``argv``) it is to run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    codes: dict[int, int | None] = {}  # of processes, None while they run
    with (
        contextlib.suppress(OSError),  # whoever asked is gone
        socket.socket(fileno=fd) as sock,
        sock.makefile("r", encoding="utf-8") as requests,
        sock.makefile("w", encoding="utf-8") as answers,
    ):
        while line := requests.readline():
            request = json.loads(line)
            if "poll" in request:
                answer: dict[str, Any] = {"code": _poll(request["poll"], codes)}
            else:
                server, pid = os.getpid(), os.fork()
                if pid == 0:
                    end_with(server)
                    _become(request)
                    return list(request["argv"])
                codes[pid] = None
                answer = {"pid": pid}
            answers.write(json.dumps({**answer, "number": request["number"]}) + "\n")
            answers.flush()
    for pid in [pid for pid, code in codes.items() if code is None]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return None


def _poll(pid: int, codes: dict[int, int | None]) -> int | None:
    if codes[pid] is None:
        done, status = os.waitpid(pid, os.WNOHANG)
        codes[pid] = os.waitstatus_to_exitcode(status) if done else None
    return codes[pid]


def _become(job: dict[str, Any]) -> None:
    """Take on the session, environment, directory, output and host that the job asks for."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    if job["host"]:
        enter(*job["host"])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    sys.argv = list(job["argv"])
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    # Forked processes would otherwise all draw the same "random" numbers.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def _run(argv: list[str]) -> NoReturn:
    """Run the script and end as the interpreter would, but for taking its modules to pieces.

    For a forked process those are half a second's copies of memory pages, which are then thrown
    away; so multiprocessing's forked processes, too, end like this.
    """
    code, interrupted = 0, False
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        code = _code_of(end)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code, interrupted = 1, isinstance(error, KeyboardInterrupt)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def _code_of(end: SystemExit) -> int:
    """The exit code that it asks for; anything but a number is a message to print."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _serve() -> None:
    # What every forked process needs, imported once.  It stays, so nobody looks for garbage in it.
    gc.disable()
    import lightning.pytorch  # noqa: F401

    import lightning_chaos.worker.node  # noqa: F401

    gc.freeze()
    gc.enable()
    argv = main(int(sys.argv[1]))
    if argv is not None:
        _run(argv)


if __name__ == "__main__":
    _serve()
