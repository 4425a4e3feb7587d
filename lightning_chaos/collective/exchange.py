"""The collective core of one worker: events in, actions out; no sockets, threads or torch.

Rules (design §6).  Operations are one numbered sequence; every member contributes to each, so
two members are never more than one finished operation apart.  The sum of a chunk goes up a tree,
each member adding its own and its children's in member order; everyone takes the root's bytes.
Results of an operation are kept until the first result of the next one is here: that one needed
everybody's contribution, so everybody has finished the one before (it is *stable*).
Contributions are kept until the operation is finished.  Thus after a failure either somebody can
pass a result on, or all can do it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_chaos.collective.actions import (
    Action,
    Failed,
    Landing,
    Misbehaved,
    Purge,
    Resume,
    Stable,
    Verdict,
)
from lightning_chaos.collective.debtors import debtors
from lightning_chaos.collective.frames import Frame, FrameKind
from lightning_chaos.collective.hand import Hand
from lightning_chaos.collective.intake import Intake
from lightning_chaos.collective.layout import HEADER
from lightning_chaos.collective.operation import Operation
from lightning_chaos.collective.recovery import Recovery
from lightning_chaos.collective.roots import Floats
from lightning_chaos.collective.succession import Succession
from lightning_chaos.collective.views import Views
from lightning_chaos.errors import ChaosError, NodeLost, WireError
from lightning_chaos.protocol.values import Decision, OpId, Report, Uid, View


class Exchange:
    """Runs operations with the other members of the view.

    Every method but :meth:`report` and :meth:`late` may cause actions; the driver takes them
    with :meth:`actions` after each call and carries them out in order.

    Args:
        me: this worker's identity.
        clock: seconds, monotonic; only measures how long an operation has been under way.
    """

    def __init__(self, me: Uid, clock: Callable[[], float]) -> None:
        self._me = me
        self._clock = clock
        self._views = Views()
        self._ops = Succession()
        self._frozen = False
        self._out: list[Action] = []
        self._hand = Hand(me, self._out)
        self._intake = Intake(self._views, self._out)
        self._came_s = 0.0
        """When the last frame came, seconds."""

    def actions(self) -> list[Action]:
        """What is to be done since the last call, in order."""
        out = list(self._out)
        self._out.clear()
        return out

    @property
    def frozen(self) -> bool:
        """Between :meth:`freeze` and the :meth:`install` that ends it."""
        return self._frozen

    @property
    def busy(self) -> bool:
        """An operation is under way."""
        return self._ops.current is not None

    @property
    def last(self) -> OpId:
        """The last operation finished here."""
        return self._ops.last

    # ---- from training -----------------------------------------------------------------------

    def start(self, last: OpId) -> None:
        """A newcomer holds the state after ``last``; its first operation is the next one."""
        self._ops.last = last

    def begin(
        self,
        op: OpId,
        label: str,
        blob: bytes,
        vector: Floats | None = None,
        weight: float = 0.0,
        buckets: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Contribute to the next operation at once; its end comes as :class:`Finished`.

        While frozen it only gets ready, and begins under the view that ends the freeze.

        Args:
            op: number, above that of the last operation.
            label: kind and call site, the same at all members.
            blob: this member's part of the header, any bytes.
            vector: flat float32 on the CPU, shape ``(n,)``, already multiplied by ``weight``;
                must stay unchanged until the operation is finished.
            weight: of this member's vector in the mean; finite, not negative.
            buckets: (offset, length) in bytes, tiling the vector; None for a single one.

        Raises:
            NodeLost: this worker is no member of the view that the operation runs under.
            ChaosError: the weight cannot be used or the blob is too long.
            ValueError: out of turn, or vector and buckets do not fit.
        """
        if buckets is None:
            buckets = () if vector is None else ((0, vector.nbytes),)
        operation = self._ops.next(op, label, vector, weight, buckets)
        operation.close(blob, self._clock())
        self._admit(operation)

    def open(
        self,
        op: OpId,
        label: str,
        vector: Floats,
        weight: float,
        buckets: Sequence[tuple[int, int]],
    ) -> None:
        """Begin the next operation before its contribution is there.

        :meth:`give` and :meth:`close` bring it.  Arguments and errors are those of :meth:`begin`;
        each bucket of the vector must stay unchanged from when it is given.
        """
        self._admit(self._ops.next(op, label, vector, weight, buckets))

    def give(self, bucket: int) -> None:
        """That bucket of the open operation's vector has its value.

        Raises:
            ValueError: no operation is open, or the bucket was given before.
        """
        operation = self._ops.opened()
        operation.give(bucket)
        if operation is self._ops.current and not self._frozen:
            self._hand.contribute(operation, operation.attempt.layout.buckets[bucket])
            self._settle()

    def close(self, blob: bytes) -> None:
        """Contribute all that the open operation lacks: the other buckets, and the header.

        Raises:
            ChaosError: the blob is too long.
            ValueError: no operation is open.
        """
        operation = self._ops.opened()
        rest = operation.close(blob, self._clock())
        if operation is self._ops.current and not self._frozen:
            layout = operation.attempt.layout
            operation.check(len(layout.members))
            pieces = (chunk for bucket in rest for chunk in layout.buckets[bucket])
            self._hand.contribute(operation, [layout.chunks[HEADER], *pieces])
            self._settle()

    def _admit(self, operation: Operation) -> None:
        if self._frozen:
            self._ops.waiting = operation
        else:
            self._start(operation)

    def late(self) -> tuple[OpId, float, dict[Uid, int]] | None:
        """The operation under way, its seconds so far, and who owes this worker a contribution.

        The seconds count from when this member had contributed all, for until then it is itself
        the one that others wait for, or from the last frame that came.  For what stands with each
        debtor see :func:`debtors`.
        """
        operation = self._ops.current
        if operation is None or self._frozen or not operation.closed:
            return None
        since = max(operation.closed_s, self._came_s)
        return operation.op, self._clock() - since, debtors(operation, self._me)

    # ---- from the peer -----------------------------------------------------------------------

    def install(self, view: View, decision: Decision | None) -> None:
        """Take over a committed view; one that is known already changes nothing.

        A planned one serves from the first operation of round ``view.switch`` on.  An unplanned
        one, which has a decision, serves at once and ends the freeze.
        """
        if view.epoch <= self._views.newest:
            return
        if decision is None:
            self._views.plan(view)
        else:
            self._recover(view, decision)
        self._out.append(Resume())

    def freeze(self) -> None:
        """From now on complete nothing, take no frame, hand out no result."""
        self._frozen = True
        if self._ops.current is not None:
            self._ops.current.attempt.void()
        self._out.append(Resume())

    def report(self, begun_round: int) -> Report:
        """See :meth:`Succession.report`."""
        return self._ops.report(begun_round)

    # ---- from data links ---------------------------------------------------------------------

    def place(self, sender: Uid, frame: Frame) -> Landing | Verdict:
        """Where the payload of an arriving frame goes, or why nowhere."""
        return self._intake.place(
            sender, frame, current=self._ops.current, last=self._ops.last, frozen=self._frozen
        )

    def complete(self, sender: Uid, frame: Frame, landing: Landing) -> None:
        """The payload of a frame is whole in the landing that :meth:`place` gave."""
        current = self._ops.current
        if landing.memory is None or current is None:
            return
        self._came_s = self._clock()
        attempt = current.attempt
        del attempt.coming[sender, frame.chunk]
        chunk = attempt.layout.chunks[frame.chunk]
        try:
            if frame.kind is FrameKind.RESULT:
                self._hand.hold(current, chunk, frame.weight, landing.memory)
            else:
                self._hand.add(current, sender, chunk, frame.weight, landing.memory)
        except WireError as error:
            self._out.append(Misbehaved(sender, str(error)))
        self._settle()

    # ---- one operation -----------------------------------------------------------------------

    def _start(self, operation: Operation) -> None:
        view = self._views.enter(operation.op.round)
        if view is None or view.rank(self._me) is None:
            raise NodeLost(
                f"{self._me} began operation {operation.op} but is no member of "
                f"{f'epoch {view.epoch}' if view else 'any view'}"
            )
        operation.afresh(self._me, view)
        self._ops.current = operation
        self._hand.contribute(operation, operation.given())
        self._settle()
        self._out.append(Resume())

    def _settle(self) -> None:
        """See what the results that have come mean."""
        operation = self._ops.current
        if operation is None or not operation.held:
            return
        if self._ops.kept is not None:
            self._out.append(Stable(self._ops.kept.op))
            self._ops.kept = None
        if operation.whole and not operation.failed:
            self._out.append(self._ops.finish(operation))

    # ---- after a failure ---------------------------------------------------------------------

    def _recover(self, view: View, decision: Decision) -> None:
        self._views.impose(view)
        self._frozen = False
        self._out.append(Purge())
        recovery = Recovery(self._me, view, decision, self._hand)
        if self._ops.kept is not None:
            recovery.of_finished(self._ops.kept)
        operation = self._ops.current
        if operation is not None:
            if (failed := recovery.of_current(operation)) is not None:
                self._out.append(failed)
            if operation.closed:
                operation.closed_s = self._clock()  # the others' time begins anew, too
        self._settle()
        waiting, self._ops.waiting = self._ops.waiting, None
        if waiting is not None:
            try:
                self._start(waiting)
            except ChaosError as error:
                self._out.append(Failed(waiting.op, error))
