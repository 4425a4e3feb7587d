"""Ways from those who hold something to those who lack it, over the links that are there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from lightning_chaos.planning.values import Pair, pairs_of


def forest(
    members: Sequence[str],
    missing: Iterable[Pair],
    sources: Collection[str],
    through: Collection[str],
) -> dict[str, str]:
    """From whom each member takes it: of the nearest to a source, the oldest.

    Breadth first from all sources at once.  With every link there, all take it straight from the
    oldest source.

    Args:
        members: identities, oldest first.
        missing: links that are not there.
        sources: who holds it.
        through: who lacks it and, once it has it, passes it on; nobody else does.

    Returns:
        For each of ``through`` that can be reached, whom it takes it from.
    """
    ranks = {name: rank for rank, name in enumerate(members)}
    dead = set(pairs_of(members, missing))
    level = sorted({ranks[name] for name in sources})
    left = sorted({ranks[name] for name in through}.difference(level))
    parents: dict[int, int] = {}
    while level and left:
        found = {}
        for rank in left:
            upper = next((u for u in level if (min(rank, u), max(rank, u)) not in dead), None)
            if upper is not None:
                found[rank] = upper
        parents |= found
        level, left = sorted(found), [rank for rank in left if rank not in found]
    return {members[rank]: members[upper] for rank, upper in parents.items()}
