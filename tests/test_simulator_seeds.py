"""Runs in virtual time with random faults: whatever happens, the promises of design §4 hold.

A failing seed prints the least of it that still breaks a promise, as a case that can be pasted
into a test, and its story.  ``CHAOS_SIM_SEED=17`` begins at another seed, ``CHAOS_SIM_S=120``
goes on for so many seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

RUNS = 2000
BOUND_S = 600.0
"""A slow machine with much else to do; a quiet one of two cores needs a minute."""


def play(first: int, runs: int) -> None:
    """Share the seeds out among the cores; fails with the least that breaks a promise."""
    cores = os.cpu_count() or 1
    command = [sys.executable, "-m", "lightning_chaos.testing.simulator"]
    end = time.monotonic() + BOUND_S
    shares = [
        subprocess.Popen(
            [*command, f"{first + core}:{first + runs}:{cores}"], stdout=subprocess.PIPE, text=True
        )
        for core in range(cores)
    ]
    try:
        for share in shares:
            said, _ = share.communicate(timeout=end - time.monotonic())
            if share.returncode != 0:
                pytest.fail(said or f"a share ended with {share.returncode}", pytrace=False)
    finally:
        for share in shares:
            share.kill()
            share.communicate()


@pytest.mark.timeout(BOUND_S)
def test_random_faults_break_no_promise() -> None:
    play(int(os.environ.get("CHAOS_SIM_SEED", "0")), RUNS)


@pytest.mark.timeout(0)
@pytest.mark.skipif("CHAOS_SIM_S" not in os.environ, reason="CHAOS_SIM_S asks for no exploring")
def test_further_seeds_break_no_promise() -> None:
    end = time.monotonic() + float(os.environ["CHAOS_SIM_S"])
    first = int(os.environ.get("CHAOS_SIM_SEED", "0"))
    while time.monotonic() < end:
        first += RUNS
        play(first, RUNS)
