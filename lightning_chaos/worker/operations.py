"""The operations of one incarnation, on the I/O loop: begun, watched, waited for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from lightning_chaos.collective.actions import (
    AskCommit,
    Failed,
    Finished,
    Misbehaved,
    Purge,
    Resume,
    Send,
    Stable,
)
from lightning_chaos.collective.exchange import Exchange
from lightning_chaos.collective.roots import Floats
from lightning_chaos.errors import ChaosError, OperationMismatch
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import OpId
from lightning_chaos.worker.allowance import Allowance
from lightning_chaos.worker.awake import Awake
from lightning_chaos.worker.chronicle import Chronicle
from lightning_chaos.worker.mesh import Mesh
from lightning_chaos.worker.turns import Outcome

log = logging.getLogger(__name__)
T = TypeVar("T")
LATE_CHECK_S = 0.2
SHOW_WAIT_S = 10.0


class OperationsOwner(Protocol):
    """The station."""

    apart: str
    """Why this incarnation has no part in the run any more, '' if it has."""

    @property
    def may_operate(self) -> bool:
        """It has a part in the run, or is alone and ends its round by itself."""
        ...

    def tell_peer(self, message: local.Local) -> None:
        """Say something to this node's peer."""
        ...

    def tell(self) -> None:
        """Something changed: whoever waits looks again."""
        ...

    async def until(self, look: Callable[[], T | None]) -> T:
        """Wait until there is something to see."""
        ...


class Operations:
    """Runs operations, one at a time, and carries out what the exchange wants done.

    Args:
        exchange: of this incarnation.
        mesh: its links.
        chronicle: told what is stable.
        owner: the station.
        timeout_s: how long others may take to hear of a mismatch, seconds.
        allowance: told when training waits for others.
    """

    def __init__(
        self,
        exchange: Exchange,
        mesh: Mesh,
        chronicle: Chronicle,
        owner: OperationsOwner,
        *,
        timeout_s: float,
        allowance: Allowance,
    ) -> None:
        self._exchange = exchange
        self._mesh = mesh
        self._chronicle = chronicle
        self._owner = owner
        self.timeout_s = timeout_s
        """How long others may take to hear of a mismatch, seconds; better known later."""
        self._allowance = allowance
        self.longest_bytes = 0
        """Of the vectors so far."""
        self._finished: Finished | None = None
        self._failed: ChaosError | None = None

    @property
    def busy(self) -> bool:
        """One is under way."""
        return self._exchange.busy

    def carry_out(self) -> None:
        """Do what the exchange has wanted done since the last call."""
        for action in self._exchange.actions():
            match action:
                case Send():
                    self._mesh.send(action)
                case Finished():
                    self._finished = action
                    self._owner.tell()
                case Stable(op=op):
                    self._chronicle.stable(op)
                case Failed(error=error):
                    self._failed = error
                    self._owner.tell()
                case AskCommit(uid=uid, epoch=epoch):
                    self._owner.tell_peer(local.SawEpoch(uid, epoch))
                case Misbehaved(uid=uid, reason=reason):
                    log.warning("%s misbehaved: %s", uid, reason)
                    self._owner.tell_peer(local.Word(uid, f"it misbehaved: {reason}"))
                case Resume():
                    self._mesh.resume()
                case Purge():
                    self._mesh.purge()

    # ---- at once ---------------------------------------------------------------------------

    async def operate(
        self,
        op: OpId,
        label: str,
        blob: bytes,
        vector: Floats | None,
        weight: float,
        buckets: tuple[tuple[int, int], ...] | None,
    ) -> Outcome | None:
        """Run one operation with the other members; None if this node is apart.

        Raises:
            OperationMismatch: members asked for different things under this number.
        """
        if not self._owner.may_operate:
            return None
        self._finished = None
        if vector is not None:
            self.longest_bytes = max(self.longest_bytes, vector.nbytes)
        self._exchange.begin(op, label, blob, vector, weight, buckets)
        self.carry_out()
        return await self._outcome(label)

    # ---- bit by bit ------------------------------------------------------------------------

    def begin(
        self,
        op: OpId,
        label: str,
        vector: Floats,
        weight: float,
        buckets: tuple[tuple[int, int], ...],
    ) -> None:
        """Begin an operation whose contribution comes bit by bit; errors are told at its end."""
        if not self._owner.may_operate:
            return
        self._finished = None
        self.longest_bytes = max(self.longest_bytes, vector.nbytes)
        try:
            self._exchange.open(op, label, vector, weight, buckets)
        except ChaosError as error:
            self._failed = error
        self.carry_out()

    def give(self, bucket: int) -> None:
        """That bucket of the operation begun has its values."""
        if not self._owner.may_operate or self._failed is not None:
            return
        self._exchange.give(bucket)
        self.carry_out()

    async def end(self, label: str, blob: bytes) -> Outcome | None:
        """Give the rest of the operation begun, and wait as :meth:`operate` does.

        Raises:
            ChaosError: it could not be begun.
            OperationMismatch: as :meth:`operate`.
        """
        if not self._owner.may_operate:
            return None
        if self._failed is None:
            self._exchange.close(blob)
            self.carry_out()
        return await self._outcome(label)

    # ---- waiting ---------------------------------------------------------------------------

    async def _outcome(self, label: str) -> Outcome | None:
        """Wait for the end of the operation under way; None if this node falls out of the run."""
        self._allowance.waits(time.monotonic(), in_round=True)
        watch = asyncio.get_running_loop().create_task(self._watch(label))
        try:
            done: Finished | str = await self._owner.until(self._end)
        except OperationMismatch:
            await self._let_others_hear()
            raise
        finally:
            watch.cancel()
            self._allowance.works(time.monotonic(), in_round=False)
        if isinstance(done, str):
            return None
        return Outcome(done.op, done.view, done.weights, done.total, done.blobs, done.result)

    def _end(self) -> Finished | str | None:
        if self._failed is not None:
            raise self._failed
        return self._finished or self._owner.apart or None

    async def _let_others_hear(self) -> None:
        """Who ends at once looks dead, and the others go on without it and without the error."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.timeout_s):
                await self._owner.until(lambda: None if self._mesh.linked else True)

    async def _watch(self, label: str) -> None:
        """Show a long wait, and tell the peer who causes it."""
        shown, awake = 0.0, Awake(LATE_CHECK_S)
        while True:
            due = time.monotonic() + LATE_CHECK_S
            await asyncio.sleep(LATE_CHECK_S)
            late = self._exchange.late()
            if late is None:
                continue
            op, waited_s, owing = late
            seconds = awake.seconds(waited_s, time.monotonic() - due)
            if seconds - shown >= SHOW_WAIT_S:
                shown = seconds
                names = ", ".join(uid.rpartition("/")[0] for uid in owing) or "results"
                log.warning("%s (operation %s) waits %.0f s for %s", label, op, seconds, names)
            if owing:
                self._owner.tell_peer(local.Late(str(op), seconds, owing))
