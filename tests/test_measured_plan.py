"""Links as unlike as relays make them: measured by what they carry, and planned for.

Nodes in threads of this process, without a Trainer: real peers, real relays.  It takes the time
that it takes to measure the links: half a second of transfers each, some seconds of calm.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lightning_chaos.monitor.runlog import LogTail
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.planning.values import ReducePlan
from lightning_chaos.protocol.values import View
from lightning_chaos.replication.image import StateImage
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.transport.relayed import dialler_for
from lightning_chaos.worker.node import Node
from lightning_chaos.worker.turns import Apart, Go, Hold

pytestmark = pytest.mark.alone

NAMES = ("n1", "n2", "n3")
VECTOR = np.ones(300_000, dtype=np.float32)
MOST_ROUNDS = 400
AFTER = 3
BOUND_S = 50.0


def take_part(name: str, env: dict[str, str], log: Path, problems: list[BaseException]) -> None:
    """Reduce one vector a round, until some rounds after the plan is not the mesh any more."""
    config = PeerConfig(
        run="measured",
        node=name,
        min_members=len(NAMES),
        timeout_s=0.5,
        linger_s=0.0,
        log_level="WARNING",
        relay=env["CHAOS_RELAY"],
    )
    dialler = dialler_for(config.relay, name)
    node = Node(config, port=int(env["CHAOS_PORT"]), run_log=str(log), dialler=dialler)
    try:
        node.open()
        node.ask_seat((("model", "m"),))
        view: View | None = None
        while node.round < MOST_ROUNDS and not planned_since(view, node.round):
            match node.turn():
                case Go(view=view):
                    round_ = node.begin_round()
                    outcome = node.operate("gradients", vector=VECTOR, weight=1.0)
                    assert outcome is not None
                    assert outcome.result is not None
                    assert outcome.result[0] == outcome.result[-1] == 1.0
                    node.record(outcome.op, round=round_)
                case Hold() as hold:
                    node.hold(hold, image(node))
                case Apart():
                    pulled = node.learn(lambda: image(node), lambda _: None)
                    node.take_seat(pulled.manifest.operation)
                case turn:
                    raise AssertionError(turn)
        node.finish({})
    except BaseException as error:
        problems.append(error)
    finally:
        node.close()


def planned_since(view: View | None, round_: int) -> bool:
    if view is None or view.plan == mesh_plan(view.uids):
        return False
    return round_ >= view.switch + AFTER


def image(node: Node) -> StateImage:
    return StateImage.of({}, {}, round=node.round + 1, operation=node.last_operation)


@pytest.mark.timeout(90)
def test_a_slow_link_is_found_by_what_it_carries_and_carries_less(tmp_path: Path) -> None:
    problems: list[BaseException] = []
    with Relays() as relays:
        relays.shape(Shape(rate_mbit=200, delay_ms=1))
        relays.shape(Shape(rate_mbit=20, delay_ms=1), "n2", "n3")
        envs = [relays.env_for(name) for name in NAMES]
        threads = [
            threading.Thread(target=take_part, args=(name, env, tmp_path, problems))
            for name, env in zip(NAMES, envs, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND_S)
    assert not problems
    events = LogTail(tmp_path).poll()
    views = [e for e in events if e.event == "view" and e.node == "n1"]
    better = views[-1]
    assert "better plan" in better["reason"]
    plan = msgspec.convert(better["plan"], ReducePlan)
    ranks = {name: rank for rank, name in enumerate(better["members"])}
    carried: Counter[frozenset[int]] = Counter()
    for tree, share in zip(plan.trees, plan.shares, strict=True):
        carried.update({frozenset(link): share for link in tree.links(3)})
    slow = carried[frozenset({ranks["n2"], ranks["n3"]})]
    # Two thirds of a vector go over each link of a mesh, each way.
    assert slow / sum(plan.shares) < 0.5
