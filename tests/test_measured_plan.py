"""Links as unlike as relays make them: measured by what they carry, and planned for.

Nodes in threads of this process, without a Trainer: real peers, real relays.  It takes the time
that it takes to measure the links (half a second of transfers each) and the planner's calm, and
twice the time until it plans anew: that is half a minute.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lightning_chaos.collective import gauging
from lightning_chaos.monitor.runlog import LogEvent, LogTail
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.planning.values import ReducePlan
from lightning_chaos.protocol.values import View
from lightning_chaos.replication.image import StateImage
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.transport.relayed import dialler_for
from lightning_chaos.worker import gauges
from lightning_chaos.worker.node import Node
from lightning_chaos.worker.turns import Apart, Go, Hold

pytestmark = pytest.mark.alone

NAMES = ("n1", "n2", "n3")
VECTOR = np.ones(300_000, dtype=np.float32)
FAST, SLOW = Shape(rate_mbit=200, delay_ms=1), Shape(rate_mbit=5, delay_ms=1)
COMPUTES_S = 0.1
LESS = 0.5
OLD_S = 1.0
MOST_ROUNDS = 4000
AFTER = 3
TIMEOUT_S = 0.5
BOUND_S = 75.0
END_S = 10.0


def take_part(
    name: str, env: dict[str, str], log: Path, problems: list[BaseException], over: Over
) -> None:
    """Reduce one vector a round until it is over."""
    config = PeerConfig(
        run="measured",
        node=name,
        min_members=len(NAMES),
        timeout_s=TIMEOUT_S,
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
        while node.round < MOST_ROUNDS and not (view and over(view, node.round)):
            match node.turn():
                case Go(view=view):
                    round_ = node.begin_round()
                    time.sleep(COMPUTES_S)
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


def image(node: Node) -> StateImage:
    return StateImage.of({}, {}, round=node.round + 1, operation=node.last_operation)


def carried(plan: ReducePlan, members: Sequence[str], a: str, b: str) -> float:
    """Share of a vector that goes over a link, each way."""
    ranks = {members.index(a), members.index(b)}
    shares = zip(plan.trees, plan.shares, strict=True)
    return sum(
        share / sum(plan.shares)
        for tree, share in shares
        if any(set(link) == ranks for link in tree.links(plan.members))
    )


class Over:
    """The slow link carried less for a while, and carries its part again since some rounds.

    All nodes see the same views, and so end after the same round.

    Args:
        given_up: set when the test has failed already.
    """

    def __init__(self, given_up: threading.Event) -> None:
        self._given_up = given_up
        self._less_since: int | None = None

    def __call__(self, view: View, round_: int) -> bool:
        """After that round, under that view."""
        share = carried(view.plan, [m.node for m in view.members], "n2", "n3")
        if share < LESS and self._less_since is None:
            self._less_since = view.epoch
        elif share >= LESS and self._less_since is not None:
            return round_ >= view.switch + AFTER
        return self._given_up.is_set()


def better_plans(log: Path, node: str) -> list[LogEvent]:
    events = LogTail(log).poll()
    views = [e for e in events if e.event == "view" and e.node == node]
    return [e for e in views if "better plan" in e["reason"]]


def confirmed_by_trains(log: Path) -> bool:
    """Since it carries little, the slow link's rate had grown old at both ends, and is fresh again.

    Of what it carries then every piece is too short to tell anything.
    """
    events = LogTail(log).poll()
    for name, other in (("n2", "n3"), ("n3", "n2")):
        told = [e["heard"] for e in events if e.event == "gauges" and e.node == name]
        ages = [heard[other]["age_s"] for heard in told if other in heard]
        old = [place for place, age_s in enumerate(ages) if age_s > OLD_S]
        if not old or min(ages[old[0] :]) > OLD_S:
            return False
    return True


def load_of(event: LogEvent) -> float:
    """What the slow link carries under the view that the log tells of."""
    plan = msgspec.convert(event.get("plan"), ReducePlan | None) or mesh_plan(event["uids"])
    return carried(plan, event["members"], "n2", "n3")


@pytest.mark.timeout(120)
def test_a_slow_link_carries_less_and_its_share_again_once_it_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("LINK_S", 0.5), ("PACE_S", 0.0), ("GIVE_S", 0.2)):
        monkeypatch.setattr(gauging, name, seconds)
    for name, value in (("PACE_S", 0.3), ("LOG_EVERY", 1)):
        monkeypatch.setattr(gauges, name, value)
    problems: list[BaseException] = []
    given_up = threading.Event()
    with Relays() as relays, contextlib.ExitStack() as end:
        relays.shape(FAST)
        relays.shape(SLOW, "n2", "n3")
        envs = [relays.env_for(name) for name in NAMES]
        threads = [
            threading.Thread(target=take_part, args=(name, env, tmp_path, problems, Over(given_up)))
            for name, env in zip(NAMES, envs, strict=True)
        ]
        for thread in threads:
            thread.start()
            end.callback(thread.join, END_S)
        end.callback(given_up.set)
        deadline = time.monotonic() + BOUND_S
        while not better_plans(tmp_path, "n1") and time.monotonic() < deadline:
            time.sleep(0.1)
        while not confirmed_by_trains(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.1)
        # Processors that others want make links look slower, too: there may be more than one.
        less = better_plans(tmp_path, "n1")
        assert less
        assert load_of(less[-1]) < LESS
        relays.shape(FAST, "n2", "n3")
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    assert not problems
    assert not any(thread.is_alive() for thread in threads)
    # Two thirds of a vector go over each link of a mesh, each way.  The last rounds may have had
    # another plan yet, if others want the processors.
    assert any(load_of(event) >= LESS for event in better_plans(tmp_path, "n1")[len(less) :])
