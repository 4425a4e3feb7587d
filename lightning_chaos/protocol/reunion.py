"""After a time in which nobody could go on: who comes back is waited for, a little while.

When a network heals, links come back one after the other.  The first few members that are a
quorum together would go on without all others, who then had to pull the state that they have.
"""

from __future__ import annotations

from collections.abc import Collection

from lightning_chaos.protocol.quorum import may_commit
from lightning_chaos.protocol.timeouts import Timeouts
from lightning_chaos.protocol.values import Uid, View

COMES_BACK_TIMEOUTS = 2
"""In so many a link that works is dialled again: half a timeout between two calls, and one for a
call that began before."""
_MOST_TIMEOUTS = 4 * COMES_BACK_TIMEOUTS
"""However many come back, and go again, one after the other."""


class Reunion:
    """Whether a member still waits for others to come back.

    Args:
        timeouts: longest silence tolerated.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._since: float | None = None
        """When it lacked a quorum, or somebody came back, last; None if it never lacked one."""
        self._back_at: float | None = None
        """Since when it has a quorum again."""
        self._away: list[Uid] = []
        self.lacking = False
        """Those who can be asked are no quorum."""

    @property
    def story(self) -> str:
        """Whom it waits for, for people."""
        names = ", ".join(uid.rpartition("/")[0] for uid in self._away)
        return f"{names} to come back, as a quorum just has"

    def installed(self, view: View) -> None:
        """A view is installed: whoever it lacks is out.

        Whoever it has may not be back yet: the workers' links come after those of the peers.
        """
        self._away = [uid for uid in self._away if uid in view.seated]
        self.lacking = False

    def look(
        self,
        now: float,
        view: View,
        lost: Collection[Uid],
        asked: Collection[Uid],
        dead: Collection[Uid],
    ) -> bool:
        """Whether to wait before the next view is proposed.

        Args:
            now: seconds.
            view: installed.
            lost: who could not stay now.
            asked: of these, who can be asked for their agreement all the same.
            dead: who votes no more: nobody waits for them.
        """
        if not lost and self._since is None:
            return False
        can = [uid for uid in view.uids if uid not in lost or uid in asked]
        self.lacking = not may_commit(view.uids, can, dead)[0]
        came_back = any(uid not in lost for uid in self._away)
        if self.lacking or (self._since is not None and came_back):
            self._since = now
        self._away = away = [uid for uid in lost if uid not in dead]
        if self.lacking or self._since is None:
            self._back_at = None
            return False
        self._back_at = now if self._back_at is None else self._back_at
        longest_s = self._timeouts.longest_s
        waited, all_s = now - self._since, now - self._back_at
        if waited >= COMES_BACK_TIMEOUTS * longest_s or all_s >= _MOST_TIMEOUTS * longest_s:
            if not away:
                self._since = None  # that is over
            return False
        return bool(away)
