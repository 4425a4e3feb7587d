"""Which part of the members stays when lost links split them, though all can be asked (design §4).

Data and control take different connections: a member that gets no data any more may still talk
to everybody.  So it is not left to whoever leads who stays: the largest part does, of parts as
large the one that holds the oldest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass

import msgspec

from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.quorum import all_accounted, has_quorum
from lightning_chaos.protocol.values import Uid, View


@dataclass(frozen=True, slots=True)
class Parts:
    """The members of a view that can be asked, as the links divide them."""

    mine: tuple[Uid, ...]
    """To whom a path of links leads from here; the first is the oldest."""
    others: tuple[Uid, ...]
    """To whom none does, though messages do."""

    def yields(self, now: float, view: View, evidence: Evidence) -> bool:
        """Another part is larger, or as large and holds the oldest: this one is to be left out.

        Args:
            now: seconds.
            view: installed.
            evidence: what is known of the links.
        """
        left = dict.fromkeys(self.others)
        while left:
            part = evidence.side(now, left.keys(), view.missing, next(iter(left)))
            older = view.uids.index(part[0]) < view.uids.index(self.mine[0])
            if len(part) > len(self.mine) or (len(part) == len(self.mine) and older):
                return True
            left = {uid: None for uid in left if uid not in part}
        return False

    def together_first(self, view: View, dead: Collection[Uid]) -> bool:
        """This part is a quorum only with the others: first all of them go on without the rest.

        For those who stay must be a quorum by themselves, and of a smaller view they can be.

        Args:
            view: installed.
            dead: incarnations known to vote no more.
        """
        if has_quorum(view.uids, self.mine):
            return False
        all_ = (*self.mine, *self.others)
        return has_quorum(view.uids, all_) and not all_accounted(view.uids, all_, dead)


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


def whole(view: View) -> View:
    """The same, counting on every link again."""
    return msgspec.structs.replace(view, missing=())
