"""Which shard is asked of which donor: the plan to begin with, the facts from then on.

Three rules turn a static plan into one that survives wrong rate estimates and lost donors:
a donor with nothing left takes the next of the one with most left; what a lost donor had
under way goes back to be asked again; and when all is under way, who would be earlier with what is
expected last is asked for it too, as often as it pays (the first answer counts).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from lightning_chaos.protocol.values import Uid

Due = Callable[[Uid, int], float]
"""When a donor's n-th answer from now is expected, seconds; n = 1 is the next, and one more than
are under way is what it would be asked for now."""


class Assignment:
    """Shards planned, under way and still missing.

    Args:
        planned: shards of each donor in the order it should send them; disjoint.
    """

    def __init__(self, planned: Mapping[Uid, Iterable[int]]) -> None:
        self._queues = {uid: deque(shards) for uid, shards in planned.items()}
        self._missing = {index for queue in self._queues.values() for index in queue}
        self._askers: dict[int, list[Uid]] = {}
        """Of each shard under way, who was asked for it, the one asked last at the end."""
        self._lines: dict[Uid, dict[int, int]] = {uid: {} for uid in self._queues}
        """Under way at each donor, in the order asked: shard and its number among all asked."""
        self._numbers = dict.fromkeys(self._queues, 0)
        self._tails: dict[Uid, list[int]] = {uid: [] for uid in self._queues}
        """Those that each donor was asked for as the last, in order; and some that are outdated."""

    @property
    def done(self) -> bool:
        """True once every shard has arrived."""
        return not self._missing

    def under_way(self, uid: Uid) -> int:
        """Number of shards this donor has been asked for and not answered."""
        return len(self._lines[uid])

    @property
    def queued(self) -> list[int]:
        """Shards that are missing and not asked of anybody yet, lowest first."""
        queued = (index for queue in self._queues.values() for index in queue)
        return sorted(index for index in queued if index in self._missing)

    def plan_anew(self, planned: Mapping[Uid, Iterable[int]]) -> None:
        """Rates have become known.

        Args:
            planned: of each donor, what is :attr:`queued`, in the order it should be sent.
        """
        self._queues = {uid: deque(planned.get(uid, ())) for uid in self._queues}

    def next(self, uid: Uid, due: Due) -> int | None:
        """The shard to ask this donor for now, None if there is none for it.

        Args:
            uid: the donor.
            due: what to expect of each.
        """
        index = self._from_queues(uid)
        if index is None:
            index = self._expected_later(uid, due)
        if index is not None:
            self._askers.setdefault(index, []).append(uid)
            self._numbers[uid] += 1
            self._lines[uid][index] = self._numbers[uid]
            self._tails[uid].append(index)
        return index

    def arrived(self, uid: Uid, index: int) -> bool:
        """A good shard came, asked for or not; False if it had come from somebody else before."""
        if self.asked_of(uid, index):
            self._answered(uid, index)
        if index not in self._missing:
            return False
        self._missing.discard(index)
        return True

    def failed(self, uid: Uid, index: int) -> None:
        """A wrong shard came; if it was asked for it is so again, of others first."""
        if not self.asked_of(uid, index):
            return
        self._answered(uid, index)
        if index in self._missing and index not in self._askers:
            self._queues[uid].append(index)

    def lost(self, uid: Uid) -> None:
        """The donor is gone; others take what was planned for it and what it had under way."""
        for index in list(self._lines[uid]):
            self.failed(uid, index)

    def asked_of(self, uid: Uid, index: int) -> bool:
        """True if this donor has been asked for that shard and not answered."""
        return index in self._lines.get(uid, ())

    def _answered(self, uid: Uid, index: int) -> None:
        del self._lines[uid][index]
        askers = self._askers[index]
        was_last = askers[-1] == uid
        askers.remove(uid)
        if not askers:
            del self._askers[index]
        elif was_last and index in self._missing:
            self._tails[askers[-1]].append(index)

    def _from_queues(self, uid: Uid) -> int | None:
        while queue := self._queues[uid] or max(self._queues.values(), key=len):
            index = queue.popleft()
            if index in self._missing:
                return index
        return None

    def _expected_later(self, uid: Uid, due: Due) -> int | None:
        """Of what others were asked for, what is expected last and would be here earlier."""
        latest_s = due(uid, self.under_way(uid) + 1)
        latest: int | None = None
        for other, tail in self._tails.items():
            while tail and self._outdated(other, tail[-1]):
                tail.pop()
            if other == uid or not tail or self.asked_of(uid, tail[-1]):
                continue
            due_s = due(other, self._place(other, tail[-1]))
            if due_s > latest_s:
                latest_s, latest = due_s, tail[-1]
        return latest

    def _outdated(self, uid: Uid, index: int) -> bool:
        """Somebody has sent it, was asked for it later, or nobody is asked for it any more."""
        return index not in self._missing or self._askers.get(index, [""])[-1] != uid

    def _place(self, uid: Uid, index: int) -> int:
        """1 for what this donor answers next."""
        line = self._lines[uid]
        return line[index] - next(iter(line.values())) + 1
