"""Which part of the members stays when lost links split them, though all can be asked (design §4).

Data and control take different connections: a member that gets no data any more may still talk
to everybody.  So it is not left to whoever leads who stays: the largest part does, of parts as
large the one that holds the oldest.  If a part is a quorum of the view, it is that one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass

from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.quorum import has_quorum
from lightning_chaos.protocol.values import Uid, View


@dataclass(frozen=True, slots=True)
class Parts:
    """The members of a view that can be asked, as the links divide them."""

    mine: tuple[Uid, ...]
    """To whom a path of links leads from here, oldest first; this member among them."""
    others: tuple[Uid, ...]
    """To whom none does, though messages do; oldest first."""

    def ahead(self, now: float, view: View, evidence: Evidence) -> int | None:
        """How many members of better parts come before this part; None if it may not go on.

        It may not if another part is a quorum by itself: all members would agree to go on
        without that one, if they were asked, and those thrown out would make the quorum.

        Args:
            now: seconds.
            view: installed.
            evidence: what is known of the links.
        """
        ahead, left = 0, dict.fromkeys(self.others)
        while left:
            part = evidence.side(now, left.keys(), view.missing, next(iter(left)))
            if has_quorum(view.uids, part):
                return None
            older = view.uids.index(part[0]) < view.uids.index(self.mine[0])
            if len(part) > len(self.mine) or (len(part) == len(self.mine) and older):
                ahead += len(part)
            left = {uid: None for uid in left if uid not in part}
        return ahead


def parts_of(
    view: View,
    lost: Collection[Uid],
    gone: Collection[Container[Uid]],
    reaches: Callable[[Uid], bool],
) -> Parts | None:
    """The parts as a member sees them; None if there is but one, or it is not in one itself.

    Args:
        view: installed.
        lost: who cannot stay with this member.
        gone: those of them who could stay with nobody.
        reaches: whether messages to that one find a way.
    """
    others = (u for u in view.uids if u in lost and not any(u in some for some in gone))
    askable = tuple(uid for uid in others if reaches(uid))
    mine = tuple(uid for uid in view.uids if uid not in lost)
    return Parts(mine, askable) if mine and askable else None
