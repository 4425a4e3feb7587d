"""Which links work, who says so, and who is dead for sure (design §4, failure detector).

Every peer says to whom it has no link.  What follows is the same for all who have heard the
same: a member to which nobody who stays has a link is left out; a link that both its ends, or
one of them for a while, say is lost is left out of the plan, and its ends stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set

from lightning_chaos.protocol.reach import partners, unreached
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Pair, Uid, pair_of

MOST_DEAD = 4096
"""So many dead incarnations are remembered, the latest: more than any view has members."""


class Evidence:
    """What one peer knows of the links between the members of its view."""

    def __init__(self, me: Uid, timeouts: Timeouts) -> None:
        self._me = me
        self._timeouts = timeouts
        self._heard_at: dict[Uid, float] = {}
        self._alive_at: dict[Uid, float] = {}
        self._broken: dict[Uid, str] = {}
        self._no_data: dict[Uid, str] = {}
        self._complaints: dict[Uid, str] = {}
        self._silent: set[Uid] = set()
        self._says: dict[Uid, dict[Uid, float]] = {}
        self._denied: dict[Uid, dict[Uid, float]] = {}
        """The same, by whom it is said of; who said it first comes first."""
        self._spoke = {me}
        """Who has said anything of its links since this lead leads."""
        self.dead: dict[Uid, str] = {}
        """Incarnations that vote no more, and how that is known."""
        self.changes = 0
        """Grows whenever a link or somebody's word of links has changed, or somebody died."""
        self._lost: dict[tuple[Uid, ...], frozenset[Pair]] = {}
        self._cut_off: dict[tuple[Uid, ...], tuple[Collection[Pair], Set[Uid]]] = {}
        """What was found since the last change, where it does not depend on the time."""

    def _changed(self) -> None:
        self.changes += 1
        self._lost.clear()
        self._cut_off.clear()

    # ---- what was seen ---------------------------------------------------------------------

    def heard(self, now: float, uid: Uid) -> None:
        """A message or a link of that incarnation came up."""
        self._heard_at[uid] = now
        if uid in self._silent:
            self._silent.remove(uid)
            self._changed()
        self.carried(now, uid)

    def carried(self, now: float, uid: Uid) -> None:
        """A message of that incarnation came through somebody else."""
        self._alive_at[uid] = now

    def linked(self, now: float, uid: Uid) -> None:
        """A control connection to it is up."""
        self._broken.pop(uid, None)
        self._changed()
        self.heard(now, uid)

    def unlinked(self, uid: Uid, reason: str) -> None:
        """No control connection to it is left."""
        self._broken[uid] = reason
        self._heard_at.pop(uid, None)
        self._changed()

    def forget(self, uid: Uid) -> None:
        """Nobody will ask for it any more."""
        self._heard_at.pop(uid, None)
        self._alive_at.pop(uid, None)
        self._broken.pop(uid, None)
        self._silent.discard(uid)
        self._spoke.discard(uid)
        self._changed()

    def no_data(self, uid: Uid, reason: str) -> None:
        """This node's worker has no data link to it, until it says otherwise."""
        self._no_data[uid] = reason

    def restored(self, uid: Uid) -> None:
        """The worker has just made a data link to it."""
        self._no_data.pop(uid, None)
        self._complaints.pop(uid, None)

    def complain(self, uid: Uid, reason: str) -> None:
        """This node's worker waits for data from it, over a link that nothing has broken."""
        self._complaints[uid] = reason

    def settle(self, missing: Collection[Pair]) -> None:
        """The worker makes progress again: its complaints are void.

        But for those over a link that the view has given up: that must be made anew first.
        """
        if self._complaints:
            kept = {b if a == self._me else a for a, b in missing if self._me in (a, b)}
            self._complaints = {u: r for u, r in self._complaints.items() if u in kept}

    def declare_dead(self, uid: Uid, reason: str) -> None:
        """It votes no more."""
        if uid in self.dead:
            return
        self.dead[uid] = reason
        self._changed()
        if len(self.dead) > MOST_DEAD:
            del self.dead[next(iter(self.dead))]

    def others_say(self, now: float, reporter: Uid, uids: Collection[Uid]) -> None:
        """Another member's whole list of incarnations to which it has no link."""
        before = self._says.get(reporter, {})
        if self.told(reporter, uids):
            return
        self._changed()
        for uid in before.keys() - set(uids):
            self._take_back(reporter, uid)
        self._says[reporter] = {uid: before.get(uid, now) for uid in uids}
        for uid in uids:
            self._denied.setdefault(uid, {}).setdefault(reporter, now)

    def spoke(self, reporter: Uid) -> None:
        """What it has said of its links holds: whoever leads is told at once what changes."""
        self._spoke.add(reporter)

    def lead_changed(self) -> None:
        """Who leads from now on may not have been told at once what has changed."""
        self._spoke = {self._me}

    def _take_back(self, reporter: Uid, uid: Uid) -> None:
        del self._denied[uid][reporter]
        if not self._denied[uid]:
            del self._denied[uid]

    def tick(self, now: float, watched: Iterable[Uid], late_s: float = 0.0) -> list[Uid]:
        """Find who has just fallen silent; one's own lateness is held against nobody.

        Args:
            now: seconds.
            watched: incarnations that must not be silent.
            late_s: for how long this peer could not hear anybody, seconds: a process that is
                starved or was stopped has the others' words still before it (Lifeguard,
                arXiv 1707.00788, section IV-A).
        """
        if late_s > 0:
            self._heard_at = {uid: min(at + late_s, now) for uid, at in self._heard_at.items()}
        fresh = []
        for uid in watched:
            at = self._heard_at.get(uid)
            if at is None or uid in self._silent:
                continue
            if now - at > self._timeouts.of(uid):
                self._silent.add(uid)
                self._changed()
                fresh.append(uid)
        return fresh

    def keep_only(self, uids: Collection[Uid]) -> None:
        """Forget what concerns incarnations that are no longer in the view."""
        known = set(uids)
        self._broken = {u: r for u, r in self._broken.items() if u in known}
        self._no_data = {u: r for u, r in self._no_data.items() if u in known}
        self._complaints = {u: r for u, r in self._complaints.items() if u in known}
        self._alive_at = {u: at for u, at in self._alive_at.items() if u in known}
        self._silent &= known
        self._spoke &= {*known, self._me}
        self._changed()
        for reporter in self._says.keys() - known:
            for uid in self._says.pop(reporter):
                self._take_back(reporter, uid)

    # ---- what follows ----------------------------------------------------------------------

    def silent(self, uid: Uid) -> bool:
        """Its link carries nothing, though nothing has broken it."""
        return uid in self._silent

    def heard_at(self, uid: Uid) -> float:
        """When it was heard last on a link that is up, minus infinity if there is none."""
        return self._heard_at.get(uid, float("-inf"))

    def no_link(self, uids: Set[Uid]) -> tuple[Uid, ...]:
        """Those of them to which this peer has no link that works, in order."""
        doubtful = self.dead.keys() | self._broken.keys() | self._silent
        doubtful |= self._no_data.keys() | self._complaints.keys()
        found = doubtful & uids - {self._me}
        return tuple(uid for uid in uids if uid in found and self.why(uid)) if found else ()

    def why(self, uid: Uid) -> str:
        """Why there is no link to it, or why it counts as dead; '' if neither."""
        if uid in self.dead:
            return self.dead[uid]
        if uid in self._broken:
            return self._broken[uid]
        if uid in self._silent:
            return f"silent for more than {self._timeouts.of(uid):.3g} s"
        return self._no_data.get(uid) or self._complaints.get(uid, "")

    def says(self, reporter: Uid, uid: Uid) -> bool:
        """That one has said that it has no link to this one."""
        return uid in self._says.get(reporter, {})

    def told(self, reporter: Uid, uids: Collection[Uid]) -> bool:
        """That one has said that it has no link to these, and to nobody else."""
        said = self._says.get(reporter)
        return said.keys() == set(uids) if said else not uids

    def barred(self, uid: Uid) -> Set[Uid]:
        """Those between whom and that one there is no link, as either end says."""
        return self._denied.get(uid, {}).keys() | self._says.get(uid, {}).keys()

    def denied(self, pair: Pair) -> bool:
        """At least one end says that the link is lost."""
        a, b = pair
        return self.says(a, b) or self.says(b, a)

    def vouched(self, pair: Pair) -> bool:
        """Both ends have spoken, and neither denies it."""
        return self._spoke.issuperset(pair) and not self.denied(pair)

    def confirmed(self, now: float, uids: Set[Uid]) -> frozenset[Pair]:
        """Lost links between two that live: both say so, or one for a while.

        The end that says nothing may be dead, or about to say it; so it counts only if it was
        heard a good while later, on whatever path, or if that has lasted longer than a timeout.
        """
        if not self._denied or (key := tuple(uids)) in self._lost:
            return self._lost[key] if self._denied else frozenset()
        found, lasting = set(), True
        for b, deniers in self._denied.items():
            if b not in uids or b in self.dead:
                continue
            answers = self._says.get(b, {})
            heard = now if b == self._me else self._alive_at.get(b, 0.0)
            oldest = next(iter(deniers.values()))
            if not answers and not self._lasts(now, oldest, heard):
                lasting = False
                continue
            for a, since in deniers.items():
                lasting = lasting and a in answers
                lives = a in answers or self._lasts(now, since, heard)
                if lives and a in uids and a not in self.dead:
                    found.add(pair_of(a, b))
        if lasting:
            self._lost[key] = frozenset(found)
        return frozenset(found)

    def _lasts(self, now: float, since: float, heard: float) -> bool:
        timeout_s = self._timeouts.longest_s
        return heard - since > timeout_s / 2 or now - since > 2 * timeout_s

    def side(
        self, now: float, uids: Set[Uid], missing: Collection[Pair] = (), first: Uid = ""
    ) -> tuple[Uid, ...]:
        """Those of them to whom a path leads from the first, that one among them.

        Args:
            now: seconds.
            uids: members and learners.
            missing: links that the view has given up; one of them counts again once neither
                end denies it.
            first: where paths begin; '' for this peer.
        """
        apart = self._apart(now, uids, missing, first or self._me)
        return tuple(uid for uid in uids if uid not in apart)

    def lost(self, now: float, uids: Set[Uid], missing: Collection[Pair] = ()) -> dict[Uid, str]:
        """Members of the view (oldest first) that must go, each with the reason."""
        apart = self._apart(now, uids, missing, self._me)
        if not apart:
            return {}
        return {u: self.why(u) or "nobody has a link to it" for u in uids if u in apart}

    def _apart(self, now: float, uids: Set[Uid], missing: Collection[Pair], first: Uid) -> Set[Uid]:
        """Those of them to whom no path leads from the first."""
        if not (self._denied or self.dead):
            return frozenset()
        key = (first, *uids)
        if key in self._cut_off and self._cut_off[key][0] is missing:
            return self._cut_off[key][1]
        dead = uids & self.dead.keys()
        here: Set[Uid] = uids - dead if dead else uids
        denied: dict[Uid, Set[Uid]] = {uid: by.keys() for uid, by in self._denied.items()}
        apart = unreached(first, here, denied)
        # Where a view splits, links between its sides are as many as pairs, and change nothing.
        rest = here - apart if apart else here
        lost = self.confirmed(now, rest) | {p for p in missing if self.denied(p)}
        if lost:
            blocked = {b: by | denied.get(b, frozenset()) for b, by in partners(lost).items()}
            apart = unreached(first, here, denied | blocked)
        found = dead | apart
        if not self._denied or tuple(rest) in self._lost:
            self._cut_off[key] = missing, found
        return found
