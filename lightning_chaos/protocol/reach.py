"""Who can be reached from whom, where almost everybody has a link to almost everybody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set

from lightning_chaos.protocol.values import Pair, Uid


def unreached(first: Uid, uids: Collection[Uid], blocked: Mapping[Uid, Set[Uid]]) -> set[Uid]:
    """Those of ``uids`` to whom no path leads from ``first``.

    It takes as long as there is something to see to: nothing with every link there.

    Args:
        first: where paths begin; reached.
        uids: on whose links they go.
        blocked: for each, those who have no link that leads to it; who is not named can be
            reached straight from anybody.
    """
    left = {uid for uid in blocked if uid in uids and uid != first}
    reached, before = ({first, *uids} - left if left else set()), -1
    while len(left) != before:
        before = len(left)
        for uid in tuple(left):
            if not reached <= blocked[uid]:
                left.remove(uid)
                reached.add(uid)
    return left


def partners(pairs: Iterable[Pair]) -> dict[Uid, set[Uid]]:
    """With whom each is in a pair."""
    found: dict[Uid, set[Uid]] = {}
    for a, b in pairs:
        found.setdefault(a, set()).add(b)
        found.setdefault(b, set()).add(a)
    return found
