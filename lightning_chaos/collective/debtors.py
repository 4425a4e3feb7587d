"""Whom a member waits for in an operation to which it has contributed all."""

from __future__ import annotations

from lightning_chaos.collective.operation import Operation
from lightning_chaos.protocol.values import Uid


def debtors(operation: Operation, me: Uid) -> dict[Uid, int]:
    """Children that owe a contribution, and parents that owe a result.

    With each stands how many workers, one waiting for the other, may keep what it owes, itself
    included.  So who is next to the one that hangs counts fewer than all who wait behind it, and
    knows first whom to name.

    Args:
        operation: of that member.
        me: that member.
    """
    attempt, layout = operation.attempt, operation.attempt.layout
    found: dict[Uid, int] = {}

    def note(uid: Uid, workers: int) -> None:
        found[uid] = min(workers, found.get(uid, workers))

    for chunk in layout.chunks:
        parent = attempt.place(chunk).parent
        if chunk.id in attempt.sums:
            for child in attempt.sums[chunk.id].missing:
                note(child, 1 + layout.height(chunk, child))
        elif parent is not None and chunk.id not in operation.held:
            passed = chunk.id in attempt.passed
            note(parent, len(layout.members) if passed else layout.patience(chunk, me))
    return found
