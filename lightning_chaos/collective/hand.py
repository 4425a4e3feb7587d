"""What one member does in an operation: gives, adds up what it roots, passes results on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_chaos.collective.actions import Action, Failed, Send
from lightning_chaos.collective.frames import Frame, FrameKind
from lightning_chaos.collective.layout import HEADER, Chunk
from lightning_chaos.collective.operation import Operation
from lightning_chaos.collective.roots import Gather, Sum, unpack_part
from lightning_chaos.errors import OperationMismatch, WireError
from lightning_chaos.protocol.values import Uid


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
        """Send this member's contribution to these chunks, but for those that are passed on."""
        attempt, gives = operation.attempt, FrameKind.CONTRIBUTION
        chunks = [c for c in given if c.id not in attempt.passed]
        for chunk in chunks:
            if chunk.root != self._me:
                payload = operation.contribution(chunk)
                self._send(chunk.root, operation, gives, chunk, operation.weight, payload)
        for chunk in chunks:
            if chunk.root == self._me:
                root = attempt.roots[chunk.id]
                if isinstance(root, Gather):
                    root.add(self._me, operation.part)
                else:
                    root.add(self._me, operation.own(chunk), operation.weight)
                self._close(operation, chunk)

    def add(
        self,
        operation: Operation,
        sender: Uid,
        chunk: Chunk,
        weight: float,
        payload: memoryview,
    ) -> None:
        """Take in a contribution to a chunk rooted here.

        Raises:
            WireError: it is the header's and cannot be read, or contradicts itself.
        """
        root = operation.attempt.roots[chunk.id]
        if isinstance(root, Sum):
            root.add(sender, np.frombuffer(payload, np.float32), weight)
        else:
            part = unpack_part(payload)
            if part.weight != weight:
                raise WireError(f"header of {operation.op} says weight {part.weight}, not {weight}")
            if part.label == operation.label and part.vector_bytes != operation.vector_bytes:
                raise WireError(
                    f"{part.label} (operation {operation.op}) has a vector of "
                    f"{part.vector_bytes} bytes, expected are {operation.vector_bytes}"
                )
            root.add(sender, part)
        self._close(operation, chunk)

    def _close(self, operation: Operation, chunk: Chunk) -> None:
        """Make the result of a chunk rooted here once every contribution has come."""
        attempt = operation.attempt
        root = attempt.roots[chunk.id]
        if root.missing:
            return
        del attempt.roots[chunk.id]
        if isinstance(root, Gather):
            total, header = root.close()
            payload = memoryview(header)
        else:
            total = root.close()
            payload = operation.outcome(chunk)
        for uid in attempt.layout.members:
            if uid != self._me:
                self._send(uid, operation, FrameKind.RESULT, chunk, total, payload)
        self.hold(operation, chunk, total, payload)

    def hold(self, operation: Operation, chunk: Chunk, total: float, payload: memoryview) -> None:
        """A result is here, whole.

        Raises:
            WireError: it is a header that cannot be read.
        """
        if chunk.id == HEADER:
            operation.hold_header(payload)
        if operation.total is not None and operation.total != total:
            self._fail(
                operation,
                f"chunks of operation {operation.op} have total weights {operation.total} and "
                f"{total}: members gave different weights to different roots",
            )
        operation.total = total
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

    def pass_on(
        self, operation: Operation, epoch: int, chunks: Sequence[int], to: Sequence[Uid]
    ) -> None:
        """Send results that are held here, under a new epoch."""
        for uid in to:
            for chunk in (operation.attempt.layout.chunks[i] for i in chunks):
                if uid != self._me:
                    assert operation.total is not None
                    payload, total = operation.outcome(chunk), operation.total
                    kind = FrameKind.RESULT
                    self._send(uid, operation, kind, chunk, total, payload, epoch=epoch)

    def _send(
        self,
        to: Uid,
        operation: Operation,
        kind: FrameKind,
        chunk: Chunk,
        weight: float,
        payload: memoryview,
        *,
        epoch: int | None = None,
    ) -> None:
        """Under the epoch of the attempt, if no other is given."""
        frame = Frame(
            kind=kind,
            tag=operation.tag,
            epoch=operation.attempt.epoch if epoch is None else epoch,
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
