"""Several lineages of one run: which are known, and which one stays (design §4, lineage).

Lineages come of founding twice, and of ``quorum="any"``: a side without a quorum then splits off
as an island.  When two meet, each lead makes a *claim* part of its next view.  Claims are ordered;
the members of a lineage with the lower one drop out and come back as newcomers of the other.

Never do all give up.  A claim counts once its view is committed, so once every member of that
view has agreed to it, and one drops out only for a claim above all that it has agreed to itself.
So nobody of the view with the highest claim ever drops out for another, whoever leads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from lightning_chaos.protocol.values import Claim, Lineage, Member, Uid, View

MOST_KNOWN = 1024
"""So many lineages are remembered: there cannot be more islands than members."""
MOST_SOUGHT = 16
"""So many of those that were lost last are called again and again."""


def outranks(one: View, other: View) -> bool:
    """This one stays: higher generation, then more samples claimed, then the smaller name."""
    if one.worth != other.worth:
        return one.worth > other.worth
    return one.lineage.name < other.lineage.name


class Islands:
    """The newest view that is known of every other lineage."""

    def __init__(self) -> None:
        self.known: dict[str, View] = {}
        """By name of the lineage."""

    def hear(self, view: View) -> bool:
        """Somebody's view of another lineage; whether it says anything new."""
        known = self.known.get(view.lineage.name)
        if known is None and len(self.known) >= MOST_KNOWN:
            return False
        if known is not None and known.epoch >= view.epoch and known.worth >= view.worth:
            return False
        self.known[view.lineage.name] = view
        return True

    def has(self, uid: Uid) -> bool:
        """That one is of another lineage."""
        return any(view.find(uid) is not None for view in self.known.values())

    def elsewhere(self, mine: View) -> dict[Uid, str]:
        """Members of this view that have agreed to a later view of another lineage, and why."""
        return {
            uid: f"it went on with {view.lineage.story}"
            for view in self.known.values()
            if view.lineage.name != mine.lineage.name and view.epoch > mine.epoch
            for uid in view.uids
            if mine.rank(uid) is not None
        }

    def unmet(self, mine: View) -> tuple[str, ...]:
        """Lineages against which this one has no claim yet, in order."""
        claim = mine.lineage.claim
        met = {mine.lineage.name, *(claim.against if claim is not None else ())}
        return tuple(sorted(self.known.keys() - met))

    def better(
        self, mine: View, agreed: Collection[View], linked: Collection[Uid], samples: int | None
    ) -> View | None:
        """One for which a member drops out now, None if it stays.

        Args:
            mine: the view installed.
            agreed: views that this member has agreed to and that may be committed.
            linked: whom it can ask for a seat.
            samples: committed here, if this side has no quorum and so can claim nothing; else
                None.
        """
        claim = mine.lineage.claim
        bound = [v for v in (mine, *agreed) if v.lineage.claim is not None]
        for view in self.known.values():
            name = view.lineage.name
            asks = view.lineage.claim is not None and name != mine.lineage.name
            if not asks or not any(uid in linked for uid in view.uids):
                continue
            if not all(outranks(view, v) for v in bound):
                continue
            fixed = claim is not None and name in claim.against
            paused = samples is not None and view.worth >= (mine.generation, samples)
            if fixed or paused:
                return view
        return None


def island_of(view: View, lead: Uid) -> View:
    """The same members, split off by that lead; newcomers ask again, perhaps elsewhere."""
    seated = set(view.uids)
    return msgspec.structs.replace(
        view,
        learners=(),
        missing=tuple(pair for pair in view.missing if seated.issuperset(pair)),
        lineage=Lineage(view.lineage.founder, f"{lead}@{view.epoch}", view.lineage.apart),
    )


def without(lineage: Lineage, left: Sequence[Member]) -> Lineage:
    """The same lineage, going on without these."""
    return msgspec.structs.replace(lineage, apart=tuple(left[-MOST_SOUGHT:]))


def claimed(lineage: Lineage, samples: int, names: Collection[str]) -> Lineage:
    """The same lineage with a claim against these too."""
    old = lineage.claim
    if old is not None:
        samples, names = max(samples, old.samples), {*names, *old.against}
    return msgspec.structs.replace(lineage, claim=Claim(samples, tuple(sorted(names))))
