"""When enough members of the last view have agreed (design §4).  Pure counting."""

from __future__ import annotations

from collections.abc import Collection

from lightning_chaos.protocol.values import Uid


def has_quorum(last: tuple[Uid, ...], acks: Collection[Uid]) -> bool:
    """More than half of *all* members of the last view, or exactly half with its oldest.

    Args:
        last: members of the last view, oldest first.
        acks: who has ACKed; others than members of ``last`` do not count.
    """
    agreed = len(set(acks).intersection(last))
    return 2 * agreed > len(last) or (2 * agreed == len(last) and last[0] in acks)


def all_accounted(last: tuple[Uid, ...], acks: Collection[Uid], dead: Collection[Uid]) -> bool:
    """The last resort: nobody of the last view can still vote otherwise.

    Args:
        last: members of the last view.
        acks: who has ACKed.
        dead: incarnations known to vote no more: they gave their last word, a newer one of the
            same node speaks, or their process is gone on this same machine.  A refusal over a
            network accounts for nobody.
    """
    return any(uid in acks for uid in last) and all(uid in acks or uid in dead for uid in last)


def may_commit(
    last: tuple[Uid, ...], acks: Collection[Uid], dead: Collection[Uid]
) -> tuple[bool, str]:
    """Whether the agreement binds the last view, and why (not), for people."""
    acks = set(acks)
    agreed = len(acks.intersection(last))
    if has_quorum(last, acks):
        return True, f"{agreed} of {len(last)} agreed"
    if all_accounted(last, acks, dead):
        return True, f"{agreed} of {len(last)} agreed, the others are known to be dead"
    return False, f"{agreed} of {len(last)} members reachable; waiting for quorum"
