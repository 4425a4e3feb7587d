"""Who can be reached, who says so, and who is dead for sure (design §4, failure detector).

A node is left out when each member that stays says it has no control path to it, or when it is
dead for sure.  A link between two live members that stays lost for longer than the timeout
costs the younger of the two its seat (it comes back as a newcomer when it can reach all).
"""

from __future__ import annotations

from collections.abc import Collection

from lightning_chaos.protocol.values import Uid


class Evidence:
    """What one peer knows of the reachability of the members of its view."""

    def __init__(self, me: Uid, timeout_s: float) -> None:
        self._me = me
        self._timeout_s = timeout_s
        self._heard_at: dict[Uid, float] = {}
        self._broken: dict[Uid, str] = {}
        self._complaints: dict[Uid, str] = {}
        self._silent: set[Uid] = set()
        self._says: dict[Uid, dict[Uid, float]] = {}
        self._ticked_at: float | None = None
        self.dead: dict[Uid, str] = {}
        """Incarnations that vote no more, and how that is known."""

    # ---- what was seen ---------------------------------------------------------------------

    def heard(self, now: float, uid: Uid) -> None:
        """A message or a link of that incarnation came up."""
        self._heard_at[uid] = now
        self._silent.discard(uid)

    def linked(self, now: float, uid: Uid) -> None:
        """A control connection to it is up."""
        self._broken.pop(uid, None)
        self.heard(now, uid)

    def unlinked(self, uid: Uid, reason: str) -> None:
        """No control connection to it is left."""
        self._broken[uid] = reason
        self._heard_at.pop(uid, None)

    def complain(self, uid: Uid, reason: str) -> None:
        """This node's worker gets no data from it."""
        self._complaints[uid] = reason

    def settle(self) -> None:
        """The worker makes progress again: its complaints are void."""
        self._complaints.clear()

    def declare_dead(self, uid: Uid, reason: str) -> None:
        """It votes no more."""
        self.dead.setdefault(uid, reason)

    def others_say(self, now: float, reporter: Uid, uids: Collection[Uid]) -> None:
        """Another member's whole list of incarnations it cannot reach."""
        before = self._says.get(reporter, {})
        self._says[reporter] = {uid: before.get(uid, now) for uid in uids}

    def tick(self, now: float, watched: Collection[Uid]) -> None:
        """Find silent ones; one's own long pause is not held against the others."""
        if self._ticked_at is not None and now - self._ticked_at > self._timeout_s / 2:
            pause = now - self._ticked_at
            self._heard_at = {uid: at + pause for uid, at in self._heard_at.items()}
        self._ticked_at = now
        for uid in watched:
            at = self._heard_at.get(uid)
            if at is not None and now - at > self._timeout_s:
                self._silent.add(uid)

    def keep_only(self, uids: Collection[Uid]) -> None:
        """Forget what concerns incarnations that are no longer in the view.

        This peer has said nothing under the new view yet.
        """
        self._complaints = {u: r for u, r in self._complaints.items() if u in uids}
        others = [uid for uid in uids if uid != self._me]
        self._says = {u: says for u, says in self._says.items() if u in others}
        self._silent &= set(uids)

    # ---- what follows ----------------------------------------------------------------------

    def last_heard(self, uid: Uid) -> float | None:
        """When it last spoke, None if there is no link."""
        return self._heard_at.get(uid)

    def unreachable(self, watched: Collection[Uid]) -> tuple[Uid, ...]:
        """Whom this peer itself cannot reach at present."""
        return tuple(uid for uid in watched if uid != self._me and self.why(uid))

    def why(self, uid: Uid) -> str:
        """Why it counts as unreachable or dead here, '' if it does not."""
        if uid in self.dead:
            return self.dead[uid]
        if uid in self._broken:
            return self._broken[uid]
        if uid in self._silent:
            return f"silent for more than {self._timeout_s:g} s"
        return self._complaints.get(uid, "")

    def lost(self, now: float, members: tuple[Uid, ...]) -> dict[Uid, str]:
        """Members of the view (oldest first) that must go, each with the reason."""
        mine = set(self.unreachable(members))
        staying = [uid for uid in members if uid not in mine]
        out: dict[Uid, str] = {}
        for uid in members:
            if uid in self.dead or (uid in mine and self._all_say(uid, staying)):
                out[uid] = self.why(uid)
        self._add_broken_pairs(now, members, out)
        return out

    def _all_say(self, uid: Uid, staying: list[Uid]) -> bool:
        return all(uid in self._says.get(m, {}) for m in staying if m != self._me)

    def _add_broken_pairs(self, now: float, members: tuple[Uid, ...], out: dict[Uid, str]) -> None:
        for a in members:
            for b, since in self._says.get(a, {}).items():
                pair_stays = b in members and a not in out and b not in out
                if pair_stays and now - since > 2 * self._timeout_s:
                    younger = max(a, b, key=members.index)
                    out[younger] = f"the link between {a} and {b} is lost"
