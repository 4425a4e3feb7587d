"""What a simulated worker trains: rounds of one or two operations, shared out by the ledger."""

from __future__ import annotations

import enum
import hashlib
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from lightning_chaos.collective.actions import Finished
from lightning_chaos.data.ledger import Ledger, Slice, commit, share_out
from lightning_chaos.protocol.values import OpId, Uid
from lightning_chaos.testing.simulator.outcome import Violation

if TYPE_CHECKING:
    from lightning_chaos.testing.simulator.worker import Worker

BATCH = 2
SIZE = 1_000_000

Entry = tuple[int, tuple[Uid, ...], str]
"""Of a finished operation: view that made it, its members, and a digest of all it gave."""


class Doing(enum.Enum):
    """What training is at."""

    STARTING = "starting"
    WAITING = "waiting for a place as learner"
    PULLING = "pulling"
    LINKING = "waiting for data links"
    PULLED = "waiting for its seat"
    BETWEEN = "between rounds"
    COMPUTING = "computing"
    OPERATING = "in an operation"
    DONE = "done"
    GONE = "gone"


class Header(msgspec.Struct, frozen=True):
    """A member's part of a round."""

    slices: Slice
    stop: bool


class Training:
    """The training thread of a worker, and its state.

    Args:
        worker: whose it is.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.ledger = Ledger(0, 0, SIZE)
        self.history: dict[OpId, Entry] = {}
        """What every operation so far gave: the state, one might say."""
        self.stopping = False
        """All have agreed to end after this round."""
        self._slice: Slice = ()

    @property
    def samples(self) -> int:
        """Committed by the rounds so far."""
        return self.ledger.size - self.ledger.left

    def begin(self, round_: int, sharers: tuple[Uid, ...]) -> None:
        """A round begins: take the batch and compute for a while."""
        worker, world = self._worker, self._worker.world
        world.invariants.begun(worker, round_)
        if worker.uid not in sharers:
            raise Violation(f"{worker.uid} begins round {round_}, shared out among {sharers}")
        slices = share_out(self.ledger, [BATCH] * len(sharers))
        self._slice = slices[sharers.index(worker.uid)]
        worker.doing = Doing.COMPUTING
        seconds = world.clock.rng.uniform(0.02, 0.3) * world.case.pace
        if world.paths.drags(worker.me.node):
            seconds *= 5
        self._after(seconds, OpId(round_, 0))

    def _after(self, seconds: float, op: OpId) -> None:
        worker = self._worker
        worker.world.clock.after(seconds, lambda: worker.when_awake(lambda: self._operate(op)))

    def _operate(self, op: OpId) -> None:
        worker = self._worker
        if worker.apart:
            return
        worker.doing = Doing.OPERATING
        header = Header(self._slice, worker.world.stop_asked)
        vector = np.full(2, len(worker.uid) + op.round, np.float32) if op.k == 0 else None
        worker.exchange.begin(op, "op", msgspec.json.encode(header), vector, 1.0)
        worker.carry_out()

    def finished(self, done: Finished) -> None:
        """An operation has its result: the state moves on, and so does the round."""
        worker = self._worker
        result = b"" if done.result is None else done.result.tobytes()
        digest = hashlib.sha256(b"|".join((*done.blobs, result))).hexdigest()[:8]
        self.history[done.op] = (done.view.epoch, done.view.uids, digest)
        if done.op.k == 0:
            headers = [msgspec.json.decode(blob, type=Header) for blob in done.blobs]
            self.ledger = commit(self.ledger, [header.slices for header in headers])
            self.stopping = any(header.stop for header in headers)
        if worker.apart:
            return
        round_ = done.op.round
        if done.op.k == 0 and (round_ % 3 == 0 or self.stopping):
            worker.doing = Doing.COMPUTING
            self._after(worker.world.clock.rng.uniform(0.0, 0.05), OpId(round_, 1))
        else:
            worker.doing = Doing.BETWEEN
            rng = worker.world.clock.rng
            pause = 0.001 if rng.random() < 0.7 else rng.uniform(0.001, 0.2)
            worker.world.clock.after(pause, worker.poll)
