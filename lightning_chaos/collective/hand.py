"""What one member does in an operation: gives, adds up for others, passes results on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lightning_chaos.collective.actions import Action, Failed, Send
from lightning_chaos.collective.frames import Frame, FrameKind
from lightning_chaos.collective.layout import HEADER, Chunk
from lightning_chaos.collective.operation import Operation
from lightning_chaos.collective.roots import Gather, Sum, pack_parts, total_weight, unpack_parts
from lightning_chaos.errors import OperationMismatch, WireError
from lightning_chaos.protocol.values import Uid

_ROUNDING = 1e-9
"""Relative; a sum of n positive float64 numbers in any order is within n x 1.2e-16 of the exact
one."""


class Hand:
    """Carries out an operation's attempt, whatever the views around it.

    Args:
        me: this member.
        out: receives the actions.
    """

    def __init__(self, me: Uid, out: list[Action]) -> None:
        self._me = me
        self._out = out

    def contribute(self, operation: Operation, given: Sequence[Chunk]) -> None:
        """Give this member's part of these chunks, but for those that are passed on."""
        attempt = operation.attempt
        chunks = [c for c in given if c.id not in attempt.passed]
        for chunk in chunks:
            if chunk.id not in attempt.sums:
                self._give(operation, chunk, operation.weight, operation.contribution(chunk))
        for chunk in chunks:
            if (gathering := attempt.sums.get(chunk.id)) is not None:
                if isinstance(gathering, Gather):
                    gathering.add(self._me, (operation.part,))
                else:
                    gathering.add(self._me, operation.own(chunk), operation.weight)
                self._close(operation, chunk)

    def add(
        self,
        operation: Operation,
        sender: Uid,
        chunk: Chunk,
        weight: float,
        payload: memoryview,
    ) -> None:
        """Take in a contribution to a chunk that this member adds up.

        Raises:
            WireError: it is the header's and cannot be read, or contradicts itself.
        """
        gathering = operation.attempt.sums[chunk.id]
        if isinstance(gathering, Sum):
            gathering.add(sender, np.frombuffer(payload, np.float32), weight)
        else:
            parts = unpack_parts(payload, gathering.brings(sender))
            if total_weight(parts) != weight:
                raise WireError(
                    f"header of {operation.op} says weight {total_weight(parts)}, not {weight}"
                )
            for part in parts:
                if part.label == operation.label and part.vector_bytes != operation.vector_bytes:
                    raise WireError(
                        f"{part.label} (operation {operation.op}) has a vector of "
                        f"{part.vector_bytes} bytes, expected are {operation.vector_bytes}"
                    )
            gathering.add(sender, parts)
        self._close(operation, chunk)

    def _close(self, operation: Operation, chunk: Chunk) -> None:
        """Pass the sum of a chunk on, or make its result, once every contribution has come."""
        attempt = operation.attempt
        gathering = attempt.sums[chunk.id]
        if gathering.missing:
            return
        del attempt.sums[chunk.id]
        root = attempt.place(chunk).parent is None
        if isinstance(gathering, Gather):
            total = total_weight(gathering.parts)
            payload = memoryview(pack_parts(gathering.parts))
        else:
            total = gathering.weight
            if root:
                gathering.divide()
            payload = operation.outcome(chunk)
        if root:
            self.hold(operation, chunk, total, payload)
        else:
            self._give(operation, chunk, total, payload)

    def _give(self, operation: Operation, chunk: Chunk, weight: float, payload: memoryview) -> None:
        """Send what this member and those below it contribute to a chunk."""
        parent = operation.attempt.place(chunk).parent
        assert parent is not None
        self._send(parent, operation, FrameKind.CONTRIBUTION, chunk, weight, payload)

    def hold(self, operation: Operation, chunk: Chunk, total: float, payload: memoryview) -> None:
        """A result is here, whole.

        Raises:
            WireError: it is a header that cannot be read.
        """
        if chunk.id == HEADER:
            operation.hold_header(payload)
        self._spread(operation, chunk, total, payload)
        if operation.total is None:
            operation.total = total
        # The same weights added up along different trees may differ in their last bits.
        elif not math.isclose(operation.total, total, rel_tol=_ROUNDING):
            self._fail(
                operation,
                f"chunks of operation {operation.op} have total weights {operation.total} and "
                f"{total}: members gave different weights to different roots",
            )
        operation.held.add(chunk.id)
        if chunk.id == HEADER:
            self._compare(operation)

    def _compare(self, operation: Operation) -> None:
        """All members must have begun the same operation."""
        askers: dict[str, list[Uid]] = {}
        for uid, part in zip(operation.attempt.layout.members, operation.parts, strict=True):
            askers.setdefault(part.label, []).append(uid)
        if len(askers) > 1:
            told = "; ".join(f"{', '.join(uids)}: {label}" for label, uids in askers.items())
            self._fail(
                operation,
                f"members asked for different operations under number {operation.op} ({told}). "
                "Every member must run the same hooks in the same order",
            )

    def pass_on(self, operation: Operation) -> None:
        """Send the results that are here already on the ways that they are to take."""
        attempt, total = operation.attempt, operation.total
        for chunk in (attempt.layout.chunks[i] for i in sorted(operation.held)):
            assert total is not None
            self._spread(operation, chunk, total, operation.outcome(chunk))

    def _spread(
        self, operation: Operation, chunk: Chunk, total: float, payload: memoryview
    ) -> None:
        """Send a result to those who take it from this member."""
        for uid in operation.attempt.place(chunk).children:
            self._send(uid, operation, FrameKind.RESULT, chunk, total, payload)

    def _send(
        self,
        to: Uid,
        operation: Operation,
        kind: FrameKind,
        chunk: Chunk,
        weight: float,
        payload: memoryview,
    ) -> None:
        frame = Frame(
            kind=kind,
            tag=operation.tag,
            epoch=operation.attempt.epoch,
            op=operation.op,
            chunk=chunk.id,
            offset=chunk.offset,
            length=len(payload),
            weight=weight,
        )
        self._out.append(Send(to, frame, payload))

    def _fail(self, operation: Operation, reason: str) -> None:
        if not operation.failed:
            operation.failed = True
            self._out.append(Failed(operation.op, OperationMismatch(reason)))
