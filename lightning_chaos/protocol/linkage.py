"""Which links the next view gives up, and which it takes back (design §4, link events)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.reach import partners, unreached
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Member, Pair, Uid, View

LONGEST_CALM_S = 60.0
"""A link that fails again and again is taken back after so long a calm at most."""


@dataclass(slots=True)
class _Past:
    """What a link has been through."""

    losses: int = 0
    lost_at: float = 0.0
    fine_since: float | None = None


class Linkage:
    """The links of the view, with hysteresis.

    A link that is lost is given up at once.  One that works again is taken back at once the
    first time; each further loss doubles the calm that it must show before, from one timeout
    to :data:`LONGEST_CALM_S`, and a link that has not been lost for that long starts anew.

    Args:
        timeouts: longest silence tolerated.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._pasts: dict[Pair, _Past] = {}

    def installed(self, now: float, view: View, old: View | None) -> None:
        """A view is installed: note the links that it gives up."""
        before = set(old.missing) if old is not None else set()
        for pair in view.missing:
            past = self._pasts.setdefault(pair, _Past())
            if pair in before:
                continue
            if now - past.lost_at > LONGEST_CALM_S:
                past.losses = 0
            past.losses, past.lost_at, past.fine_since = past.losses + 1, now, None
        known = {m.uid for m in (*view.members, *view.learners)}
        self._pasts = {pair: p for pair, p in self._pasts.items() if known.issuperset(pair)}

    def watch(self, now: float, view: View, evidence: Evidence) -> None:
        """Look which of the links that are missing work; to be called often."""
        for pair in view.missing:
            past = self._pasts.setdefault(pair, _Past())
            if evidence.denied(pair):
                past.fine_since = None
            elif past.fine_since is None:
                past.fine_since = now

    def cut(
        self, now: float, view: View, lost: Collection[Uid], evidence: Evidence
    ) -> frozenset[Pair]:
        """Links that are lost and that the view still counts on, between those who are not."""
        here = view.everybody - set(lost) if lost else view.everybody
        return evidence.confirmed(now, here) - set(view.missing)

    def back(self, now: float, view: View, evidence: Evidence) -> frozenset[Pair]:
        """Links that the view has given up and that have worked for long enough."""
        return frozenset(
            pair
            for pair in view.missing
            if evidence.vouched(pair) and self._calm(now, self._pasts.get(pair))
        )

    def _calm(self, now: float, past: _Past | None) -> bool:
        if past is None or past.fine_since is None:
            return False
        wanted = self._timeouts.longest_s * 2.0 ** (past.losses - 2) if past.losses > 1 else 0.0
        return now - past.fine_since >= min(wanted, LONGEST_CALM_S)


def told(
    pairs: Collection[Pair], members: tuple[Member, ...], learners: tuple[Member, ...]
) -> tuple[Pair, ...]:
    """Those pairs that a view of these tells: of two members, or of a learner and a member."""
    if not pairs:
        return ()
    seated = {m.uid for m in members}
    known = seated | {m.uid for m in learners}
    return tuple(sorted(p for p in pairs if known.issuperset(p) and not seated.isdisjoint(p)))


def joined(
    first: Uid, members: tuple[Member, ...], missing: Collection[Pair]
) -> tuple[Member, ...]:
    """Those of them to whom a path leads from the first, in order."""
    apart = unreached(first, {m.uid: m for m in members}, partners(missing)) if missing else ()
    return tuple(m for m in members if m.uid not in apart) if apart else members
