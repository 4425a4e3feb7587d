"""The numbered operations of a node's rounds, as the training thread asks for them."""

from __future__ import annotations

from typing import Any

from lightning_chaos.collective.roots import Floats
from lightning_chaos.errors import ChaosError
from lightning_chaos.protocol.values import OpId
from lightning_chaos.worker.incarnations import Incarnations
from lightning_chaos.worker.station import Station
from lightning_chaos.worker.turns import Outcome


class OperationSequence:
    """Numbers them (round, k since that round), as every other member does.

    Args:
        life: of the node.
    """

    def __init__(self, life: Incarnations) -> None:
        self._life = life
        self._round = -1
        self._k = 0
        self._open = ""
        """Label of the operation begun and not ended, if any."""

    @property
    def _station(self) -> Station:
        """The present incarnation's."""
        return self._life.station

    @property
    def round(self) -> int:
        """The round that has begun, -1 before the first."""
        return self._round

    @property
    def last_operation(self) -> OpId:
        """Number of the last operation finished here; all members' between two rounds."""
        return self._station.exchange.last

    def _next_op(self) -> OpId:
        op = OpId(self._round, self._k)
        self._k += 1
        return op

    def operate(
        self,
        label: str,
        blob: bytes = b"",
        vector: Floats | None = None,
        weight: float = 0.0,
        buckets: tuple[tuple[int, int], ...] | None = None,
    ) -> Outcome | None:
        """Run the next operation of this round with the other members.

        Args:
            label: kind and call site; the same at all members.
            blob: this member's part of the header.
            vector: float32, flat, multiplied by ``weight``; or None.
            weight: of this member in the mean.
            buckets: (offset, length) in bytes, tiling the vector.

        Returns:
            None when this node has fallen out of the run.

        Raises:
            OperationMismatch: members asked for different operations.
            ChaosError: asked for within another operation, that is by a hook inside backward.
        """
        if self._open:
            raise ChaosError(
                f"{label} was asked for during backward, while {self._open} are being reduced: "
                "no collective can run there. Use it in training_step or on_after_backward"
            )
        op = self._next_op()
        work = self._station.operations.operate(op, label, blob, vector, weight, buckets)
        return self._life.call(work)

    def begin_operation(
        self,
        label: str,
        vector: Floats,
        weight: float,
        buckets: tuple[tuple[int, int], ...],
    ) -> None:
        """Begin the next operation of this round before its contribution is there; returns at once.

        :meth:`give` and :meth:`end_operation` bring it.

        Args:
            label: as for :meth:`operate`; the others too.
            vector: each bucket must keep its values from when it is given until the end.
            weight: of this member in the mean.
            buckets: (offset, length) in bytes, tiling the vector.
        """
        op, self._open = self._next_op(), label
        self._life.tell(
            lambda station: station.operations.begin(op, label, vector, weight, buckets)
        )

    def give(self, bucket: int) -> None:
        """That bucket of the operation begun has its values; returns at once."""
        self._life.tell(lambda station: station.operations.give(bucket))

    def end_operation(self, blob: bytes) -> Outcome | None:
        """Contribute the rest of the operation begun, and wait for its end; see :meth:`operate`.

        Args:
            blob: this member's part of the header.
        """
        label, self._open = self._open, ""
        return self._life.call(self._station.operations.end(label, blob))

    @property
    def operation_begun(self) -> bool:
        """Between :meth:`begin_operation` and :meth:`end_operation`."""
        return bool(self._open)

    def record(self, op: OpId, **fields: Any) -> None:
        """Write a round to the run log as soon as it is stable."""
        self._life.tell(lambda station: station.chronicle.keep(op, fields))
