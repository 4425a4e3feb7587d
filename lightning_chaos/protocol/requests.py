"""What one node asks of whoever leads: a seat, a leave, a flush (design §4).

A request is said to all members and repeated every timeout until a view grants it, because any
message may be lost with its connection, and the lead with its wishes.
"""

from __future__ import annotations

from lightning_chaos.protocol import local
from lightning_chaos.protocol.messages import (
    FlushRequest,
    JoinReady,
    JoinRequest,
    LeaveRequest,
)
from lightning_chaos.protocol.standing import Role, Standing
from lightning_chaos.protocol.values import Uid, View

NEVER = float("-inf")
TAKE_OVER_S = 30.0
"""So long a learner may take to make the state its own, however fast the pull was, seconds."""
TAKE_OVER_TIMES = 10
"""Or so many times as long as the pull; members stand still for it."""
QUIET_S = 5.0
"""A newcomer says what it waits for if it has no place after so long, seconds."""


class Requests:
    """The wishes of this node that are not granted yet.

    Args:
        standing: shared with the other parts of this peer.
    """

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self.seat: local.AskSeat | None = None
        """The worker is ready to train."""
        self.leaving = False
        """The worker wants to go."""
        self._ready: JoinReady | None = None
        self._learns_at = self._progress_at = 0.0
        self._whole = False
        """All bytes of the state are here."""
        self._asked_at = NEVER
        self._asks_since: float | None = None
        self._flush = ""
        self._flush_asked_at = NEVER
        self._leavers: dict[Uid, int] = {}

    # ---- wishes ----------------------------------------------------------------------------

    def ready(self, epoch: int, round_: int) -> None:
        """The learner holds the state at the begin of that round."""
        self._ready = JoinReady(epoch, round_)
        self._asked_at = NEVER

    def leave(self) -> None:
        """The worker wants to go between two rounds."""
        self.leaving = True
        self._asked_at = NEVER

    def flush(self, reason: str) -> None:
        """All workers must freeze and recover, with the same members."""
        self._flush = self._flush or reason
        self._flush_asked_at = NEVER

    def learns(self) -> None:
        """A place as learner: nothing is pulled yet."""
        self._ready = None
        self._learns_at = self._standing.now
        self.pulling(0, 1)

    def pulling(self, bytes_: int, total: int) -> None:
        """The pull makes progress: so many bytes of so many are here."""
        self._progress_at = self._standing.now
        self._whole = bytes_ >= total

    def check_pull(self) -> None:
        """A learner that gets nowhere gives its place up: members may stand still for it."""
        standing, bound, took_s = self._standing, self._standing.worker_timeout_s, 0.0
        what = "the pull made no progress"
        if self._whole and self._ready is None:
            took_s = self._progress_at - self._learns_at
            bound = min(bound, max(TAKE_OVER_S, TAKE_OVER_TIMES * took_s))
            what = "its worker has pulled the state and not taken it over"
        if standing.role is Role.LEARNER and standing.now - self._progress_at > bound:
            standing.resign(f"{what} for {bound:.3g} s")

    @property
    def waiting(self) -> str:
        """What a newcomer waits for, for people; '' while it does not take long."""
        standing, view, since = self._standing, self._standing.view, self._asks_since
        if standing.role is not Role.NEWCOMER or view is None or since is None:
            return ""
        if standing.now - since < QUIET_S:
            return ""
        members, learners = (", ".join(m.node for m in of) for of in (view.members, view.learners))
        return f"a place in the run of {members}" + (f", after {learners}" if learners else "")

    # ---- what becomes of them --------------------------------------------------------------

    def installed(self, view: View, old: View | None, *, recovered: bool) -> None:
        """A view is installed; ``recovered`` if frozen workers go on by its decision."""
        self._flush_asked_at = NEVER
        if recovered:
            self._flush = ""
            self._leavers.clear()
        elif old is not None:
            left = (uid for uid in old.uids if view.find(uid) is None)
            self._leavers.update(dict.fromkeys(left, view.switch))

    def begun(self, round_: int) -> None:
        """The worker has begun this round: nobody who left before is needed any more."""
        self._leavers = {uid: at for uid, at in self._leavers.items() if at > round_}

    @property
    def leavers(self) -> tuple[Uid, ...]:
        """Planned out, and still needed in the rounds until they go."""
        return tuple(self._leavers)

    # ---- asking ----------------------------------------------------------------------------

    def say(self) -> None:
        """Ask for what is wanted, again every timeout."""
        self._watch_leavers()
        self._say_flush()
        standing = self._standing
        if standing.now - self._asked_at < standing.timeout_s:
            return
        if standing.role is Role.NEWCOMER and self.seat is not None:
            furthest = max((s.round for s in standing.statuses.values()), default=-1)
            if furthest >= self.seat.at_round and self._all_met():
                self._asked_at = standing.now
                self._asks_since = self._asks_since or standing.now
                vain = standing.evidence.no_link(standing.view.seated) if standing.view else ()
                standing.ask_members(JoinRequest(standing.me, self.seat.fingerprint, vain))
        elif standing.role is Role.LEARNER and self._ready is not None:
            self._asked_at = standing.now
            standing.ask_members(self._ready)
        elif standing.role is Role.MEMBER and self.leaving:
            self._asked_at = standing.now
            standing.ask_members(LeaveRequest(standing.me.uid))

    def _all_met(self) -> bool:
        """Every member is linked, or was dialled in vain; one at least is linked."""
        standing, view = self._standing, self._standing.view
        if view is None or standing.linked.keys().isdisjoint(view.uids):
            return False
        return all(uid in standing.linked or standing.evidence.why(uid) for uid in view.uids)

    def _watch_leavers(self) -> None:
        """One who goes before its last round leaves an operation that cannot finish."""
        for uid in self._leavers:
            if not self._flush and (why := self._standing.evidence.why(uid)):
                self.flush(f"{uid} went before its last round: {why}")

    def _say_flush(self) -> None:
        standing = self._standing
        again = standing.now - self._flush_asked_at >= standing.timeout_s
        if self._flush and again and standing.view is not None and standing.active:
            self._flush_asked_at = standing.now
            standing.ask_members(FlushRequest(standing.view.epoch, self._flush))
