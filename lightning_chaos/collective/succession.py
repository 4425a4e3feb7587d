"""The operations of one member, one after the other: kept, under way, waiting.

Every member contributes to each, so two members are never more than one finished operation apart:
the last one finished and the one under way are all that a redo can need (design §6).
"""

from __future__ import annotations

from collections.abc import Sequence

from lightning_chaos.collective.actions import Finished
from lightning_chaos.collective.attempt import Space
from lightning_chaos.collective.operation import Operation
from lightning_chaos.collective.roots import Floats, total_weight
from lightning_chaos.protocol.values import OpId, Report

BEFORE_ALL = OpId(-1, 0)
"""Stands for the last finished operation while there has been none."""


class Succession:
    """Which operations this member is concerned with."""

    def __init__(self) -> None:
        self.last = BEFORE_ALL
        """The last one finished here."""
        self.kept: Operation | None = None
        """That one with its results, until it is known to be stable."""
        self.current: Operation | None = None
        """Under way."""
        self.waiting: Operation | None = None
        """Begun in a freeze; under way once a view ends that."""
        self._space = Space()

    def next(
        self,
        op: OpId,
        label: str,
        vector: Floats | None,
        weight: float,
        buckets: Sequence[tuple[int, int]],
    ) -> Operation:
        """A new operation, not under way yet; see :class:`Operation` for arguments and errors.

        Raises:
            ValueError: out of turn.
        """
        if self.current is not None or self.waiting is not None or op <= self.last:
            raise ValueError(f"operation {op} begun out of turn, the last one was {self.last}")
        return Operation(op, label, vector, weight, buckets, self._space)

    def opened(self) -> Operation:
        """The one that still lacks some of this member's contribution.

        Raises:
            ValueError: there is none.
        """
        operation = self.current or self.waiting
        if operation is None or operation.closed:
            raise ValueError(f"no operation is open, the last one was {self.last}")
        return operation

    def finish(self, operation: Operation) -> Finished:
        """The one under way has all its results; keep it."""
        parts = operation.parts
        operation.release()
        self.current, self.kept, self.last = None, operation, operation.op
        return Finished(
            op=operation.op,
            label=operation.label,
            view=operation.attempt.origin,
            weights=tuple(part.weight for part in parts),
            total=total_weight(parts),
            blobs=tuple(part.blob for part in parts),
            result=operation.result,
        )

    def report(self, begun_round: int) -> Report:
        """What a frozen member holds.

        Args:
            begun_round: highest round whose batch was fetched.
        """
        operation = self.current
        return Report(
            finished=self.last,
            keeps=self.kept is not None,
            current=operation.op if operation else None,
            held=tuple(sorted(operation.held)) if operation else (),
            chunks=len(operation.attempt.layout.chunks) if operation else 0,
            contributors=operation.attempt.layout.members if operation else (),
            begun_round=begun_round,
            plan=operation.attempt.layout.plan.mark if operation else 0,
        )
