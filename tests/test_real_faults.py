"""Faults of every kind at random times, on real processes and links.

``CHAOS_FAULTS_SEED`` draws others.  What exactly a fault meets is chance all the same.  It takes a
minute because thirty faults need one.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from cluster_fixtures import SCRIPTS, Cluster, replayed

from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.director import Director
from lightning_chaos.testing.lab.faults import Fault, Heal, Schedule, Throttle, at
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.lab.storm import WEIGHTS, storm
from lightning_chaos.testing.lab.survival import survivable
from lightning_chaos.testing.launch import ForkServer

NODES = ("n1", "n2", "n3", "n4", "n5")
LAN = Shape(rate_mbit=200, delay_ms=2)
EVERY_S = 1.3
MINUTES = 0.85


def draw(seed: int) -> Schedule:
    """At least thirty faults, every kind among them; cures do not count."""
    for attempt in range(1000):
        rng = f"{seed}.{attempt}"
        script = storm(
            random.Random(rng).randrange(1 << 30),
            NODES,
            MINUTES,
            every_s=EVERY_S,
            most_ended=10,
            shape=LAN,
        )
        struck = [fault for fault in script.faults if not is_cure(fault)]
        kinds = {fault.plain()["do"] for fault in struck}
        if kinds >= WEIGHTS.keys() and len(struck) >= 30:
            return script
    raise AssertionError(f"no schedule of every kind from seed {seed}")


def is_cure(fault: Fault) -> bool:
    """It ends what an earlier fault began."""
    free = isinstance(fault.deed, Throttle) and fault.deed.shape == LAN
    return isinstance(fault.deed, Heal) or free or fault.plain()["do"] == "cont"


@pytest.mark.timeout(180)
def test_thirty_random_faults_leave_no_process_and_one_state_that_can_be_recomputed(
    fork_server: ForkServer, relays: Relays, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CHAOS_FAULTS_SEED", "2"))
    print(f"CHAOS_FAULTS_SEED={seed}")
    relays.shape(LAN)
    script = draw(seed)
    with Cluster(
        SCRIPTS / "replayed.py",
        directory=tmp_path / "run",
        env={"CHAOS_LINGER": "0", "CHAOS_MIN_MEMBERS": str(len(NODES))},
        launcher=fork_server,
    ) as run:
        run.bound_s = 40.0
        with Director(script, run, relays) as director:
            for node in NODES:
                director.start(node)
                run.wait_told("start" if node == NODES[0] else "pull", node)
            run.wait_members(*NODES)
            director.run(timeout_s=90.0)
        relays.heal()
        # Not whoever still runs now: one that was sent away a moment ago may still be leaving.
        left = survivable(script, NODES).members
        run.wait_members(*left)
        run.wait_rounds(3)
        run.finish(*left)
        for pid in {int(e[who]) for e in run.told("start") for who in ("pid", "peer_pid")}:
            run.wait_gone(pid)
        digest = run.told("final")[-1]["digest"]
    code, said = replayed(fork_server, run.log_dir, timeout_s=60.0)
    assert code == 0, said
    assert said.count(digest) == 2


def test_a_cure_is_no_fault() -> None:
    assert is_cure(at(seconds=1).heal())
    assert is_cure(at(seconds=1).throttle("a", "b", LAN))
    assert not is_cure(at(seconds=1).kill("a"))
