"""Seeds shared out among the cores, a process each that gives way to all else on the machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")
"""How nice this session is to others."""
NICEST = "19"
TRIES = 50
TRY_S = 0.1


def play(kind: str, first: int, runs: int, bound_s: float | None = None) -> tuple[str, bool]:
    """Play the cases of so many seeds.

    Args:
        kind: one of :data:`~.draw.DRAWS`.
        first: seed.
        runs: how many seeds.
        bound_s: longest that it may take; None: for ever.

    Returns:
        What the processes said, the one that found something alone; and whether all promises
        were kept.

    Raises:
        subprocess.TimeoutExpired: it takes longer.
    """
    cores = min(os.cpu_count() or 1, runs)
    command = [sys.executable, "-m", "lightning_chaos.testing.simulator", "--draw", kind]
    command += ["--share-of", str(os.getpid())]
    end = None if bound_s is None else time.monotonic() + bound_s
    told = ""
    with contextlib.ExitStack() as stack:
        processes = []
        for core in range(cores):
            seeds = f"{first + core}:{first + runs}:{cores}"
            process = subprocess.Popen(
                [*command, seeds], stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in processes:
            said, _ = process.communicate(timeout=end and end - time.monotonic())
            if process.returncode != 0:
                return said or f"a process ended with {process.returncode}\n", False
            told += said
    return told, True


def give_way() -> None:
    """From now on this process gets only the processor time that nobody else wants.

    In the idle class it is behind all others of its session.  Linux may share processors out
    among sessions first (sched(7), autogroups), to each alike, so that a share's gives way too.
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    for _ in range(TRIES if is_share() and os.access(AUTOGROUP, os.W_OK) else 0):
        try:
            AUTOGROUP.write_text(NICEST)
            return
        except BlockingIOError:  # ordinary users may do so ten times a second, all together
            time.sleep(TRY_S)


def is_share() -> bool:
    """This process plays a share of the seeds: it leads a session of its own."""
    return os.getsid(0) == os.getpid()
