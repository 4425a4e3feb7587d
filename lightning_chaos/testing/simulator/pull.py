"""How a simulated learner comes by the state: it copies that of a donor, at one moment.

The real pull takes shards of one image from all donors; what is left of that here is that all
donors of the image must be at the same round, that it takes a while, and that donors vanish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import View
from lightning_chaos.testing.simulator.outcome import Violation
from lightning_chaos.testing.simulator.training import Doing

if TYPE_CHECKING:
    from lightning_chaos.testing.simulator.worker import Worker
    from lightning_chaos.testing.simulator.world import World

AGAIN_S = 0.05


def pull(world: World, worker: Worker) -> None:
    """Copy a donor that stands still; again and again until there is one."""
    course = worker.course
    if not worker.active or course is None:
        return
    donors = [] if worker.hung else _donors(world, worker)
    if not donors or world.clock.rng.random() < 0.3:
        world.clock.after(AGAIN_S, lambda: pull(world, worker))
        if donors:
            worker.say(local.Pulling(1, 2))
        return
    donor, view = donors[0], course.view
    world.paths.sent("Pull", donor.me.node, worker.me.node)
    worker.training.history = dict(donor.training.history)
    worker.training.ledger = donor.training.ledger
    worker.exchange.start(donor.exchange.last)
    course.begun, course.pulling, worker.doing = donor.begun, True, Doing.LINKING
    if course.begun != view.switch - 1:
        raise Violation(f"{worker.uid} pulled round {donor.begun + 1}, its seat is {view.switch}")
    _link(world, worker)


def _donors(world: World, worker: Worker) -> list[Worker]:
    """Members that stand still with the image it is to pull, and can be reached."""
    place = worker.place
    assert place is not None
    uids = [uid for uid in place.uids if world.wires.meets(worker.uid, uid)]
    workers = [world.nodes[uid].worker for uid in uids]
    donors = [w for w in workers if w.holds and w.image == worker.image]
    world.clock.rng.shuffle(donors)
    return donors


def _link(world: World, worker: Worker) -> None:
    """Say that it is ready once there are data links to all to whom the view has one."""
    view: View | None = worker.view
    if not worker.active or view is None:
        return
    others = [uid for uid in view.uids if uid != worker.uid and view.joins(worker.uid, uid)]
    linked = all(world.wires.meets(worker.uid, uid) for uid in others)
    if worker.hung or not linked:
        world.clock.after(AGAIN_S, lambda: _link(world, worker))
    elif not worker.outlived():
        worker.doing = Doing.PULLED
        worker.say(local.Pulled(view.epoch, view.switch))
