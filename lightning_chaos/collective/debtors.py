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
    noted: set[tuple[int, Uid]] = set()
    """By tree, of which there are few, while a large vector has thousands of chunks."""

    def note(uid: Uid, workers: int) -> None:
        found[uid] = min(workers, found.get(uid, workers))

    for chunk in layout.chunks:
        tree = id(chunk.tree)
        if chunk.id in attempt.sums:
            for child in attempt.sums[chunk.id].missing:
                if (tree, child) not in noted:
                    noted.add((tree, child))
                    note(child, 1 + layout.height(chunk, child))
        elif chunk.id not in operation.held:
            parent = attempt.place(chunk).parent
            if parent is not None and chunk.id in attempt.passed:
                note(parent, len(layout.members))
            elif parent is not None and (tree, parent) not in noted:
                noted.add((tree, parent))
                note(parent, layout.patience(chunk, me))
    return found
