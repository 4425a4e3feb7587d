"""Which shard is asked of which donor: the plan to begin with, the facts from then on.

Three rules turn a static plan into one that survives wrong rate estimates and lost donors:
a donor with nothing left takes from the back of the one with most left; what a lost donor had
under way goes back to be asked again; and when all is under way, idle donors are asked a second
time for what was asked last (the first answer counts).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from lightning_chaos.protocol.values import Uid

_TWICE_WHILE_UNDER_WAY = 8
"""A donor takes second requests while it has fewer than so many shards under way."""


class Assignment:
    """Shards planned, under way and still missing.

    Args:
        planned: shards of each donor in the order it should send them; disjoint.
    """

    def __init__(self, planned: Mapping[Uid, Iterable[int]]) -> None:
        self._queues = {uid: deque(shards) for uid, shards in planned.items()}
        self._missing = {index for queue in self._queues.values() for index in queue}
        self._asked: dict[int, list[Uid]] = {}
        """Shards under way, those asked first first, and of whom."""
        self._under_way = dict.fromkeys(self._queues, 0)

    @property
    def done(self) -> bool:
        """True once every shard has arrived."""
        return not self._missing

    def under_way(self, uid: Uid) -> int:
        """Number of shards this donor has been asked for and not answered."""
        return self._under_way[uid]

    @property
    def queued(self) -> list[int]:
        """Shards not asked of anybody yet, lowest first."""
        return sorted(index for queue in self._queues.values() for index in queue)

    def plan_anew(self, planned: Mapping[Uid, Iterable[int]]) -> None:
        """Rates have become known.

        Args:
            planned: of each donor, what is :attr:`queued`, in the order it should be sent.
        """
        self._queues = {uid: deque(planned.get(uid, ())) for uid in self._queues}

    def next(self, uid: Uid) -> int | None:
        """The shard to ask this donor for now, None if there is none for it."""
        index = self._from_queues(uid)
        if index is None and self.under_way(uid) < _TWICE_WHILE_UNDER_WAY:
            index = self._second_request(uid)
        if index is not None:
            self._asked.setdefault(index, []).append(uid)
            self._under_way[uid] += 1
        return index

    def arrived(self, uid: Uid, index: int) -> bool:
        """A good shard came; False if it had come from somebody else before."""
        self._answered(uid, index)
        if index not in self._missing:
            return False
        self._missing.discard(index)
        return True

    def failed(self, uid: Uid, index: int) -> None:
        """A wrong shard came; it is asked again, of others first."""
        self._answered(uid, index)
        if index in self._missing and index not in self._asked:
            self._queues[uid].append(index)

    def lost(self, uid: Uid) -> None:
        """The donor is gone; others take what was planned for it and what it had under way."""
        for index in [index for index, asked in self._asked.items() if uid in asked]:
            self.failed(uid, index)

    def asked_of(self, uid: Uid, index: int) -> bool:
        """True if this donor has been asked for that shard and not answered."""
        return uid in self._asked.get(index, ())

    def _answered(self, uid: Uid, index: int) -> None:
        asked = self._asked[index]
        asked.remove(uid)
        self._under_way[uid] -= 1
        if not asked:
            del self._asked[index]

    def _from_queues(self, uid: Uid) -> int | None:
        own = self._queues[uid]
        if own:
            return own.popleft()
        fullest = max(self._queues.values(), key=len)
        return fullest.pop() if fullest else None

    def _second_request(self, uid: Uid) -> int | None:
        for index in reversed(self._asked):
            asked = self._asked[index]
            if index in self._missing and len(asked) == 1 and uid not in asked:
                return index
        return None
