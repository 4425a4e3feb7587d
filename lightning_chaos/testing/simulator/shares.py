"""Seeds shared out among the cores, a process each."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time


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
    end = None if bound_s is None else time.monotonic() + bound_s
    told = ""
    with contextlib.ExitStack() as stack:
        processes = []
        for core in range(cores):
            seeds = f"{first + core}:{first + runs}:{cores}"
            process = subprocess.Popen([*command, seeds], stdout=subprocess.PIPE, text=True)
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in processes:
            said, _ = process.communicate(timeout=end and end - time.monotonic())
            if process.returncode != 0:
                return said or f"a process ended with {process.returncode}\n", False
            told += said
    return told, True
