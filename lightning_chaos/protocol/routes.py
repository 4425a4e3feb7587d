"""Which way control messages go: straight, or through others that have a link (design §4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from lightning_chaos.protocol.evidence import Evidence
from lightning_chaos.protocol.values import Uid

MOST_STRANGERS = 1024
"""The ways to so many who are in no view are remembered, until the next view is installed."""


class Routes:
    """The next hop to everybody, from what all say about their links.

    Args:
        me: this incarnation.
        linked: to whom there is a control connection.
        evidence: what is known of the others' links.
    """

    def __init__(self, me: Uid, linked: Collection[Uid], evidence: Evidence) -> None:
        self._me = me
        self._linked = linked
        self._evidence = evidence
        self.backs: dict[Uid, Uid] = {}
        """Through whom a message of each came last."""

    def came(self, origin: Uid, hop: Uid, within: Collection[Uid]) -> bool:
        """A message of that origin came through that neighbour: so may the answer.

        Args:
            origin: who said it.
            hop: who passed it on.
            within: members and learners of the view.

        Returns:
            False if it is one stranger too many: nothing that it says may be remembered.
        """
        known = origin in self.backs or origin in within or origin in self._linked
        if not known and len(self.backs) >= MOST_STRANGERS + len(within):
            return False
        self.backs[origin] = hop
        return True

    def keep_only(self, uids: Collection[Uid]) -> None:
        """Forget the ways to those who are not linked and not in the view."""
        self.backs = {u: hop for u, hop in self.backs.items() if u in uids}

    def hop(self, to: Uid, within: Collection[Uid]) -> Uid | None:
        """To whom to give a message for ``to``; None if no way is known.

        Nobody tells of links to those who are not in the view: the way to them is the one on
        which their last message came.

        Args:
            to: receiver.
            within: members and learners of the view, who pass messages on.
        """
        if self.direct(to):
            return to
        firsts = {uid: uid for uid in within if self.direct(uid)}
        left = [uid for uid in within if uid not in firsts and uid != self._me]
        queue = deque(firsts)
        while queue and left:
            here = queue.popleft()
            near = [uid for uid in left if self._edge(here, uid)]
            for uid in near:
                firsts[uid] = firsts[here]
                left.remove(uid)
            queue.extend(near)
        if to in within:
            return firsts.get(to)
        # A stranger says nothing of its links: the way that it came is all that is known.
        back = self.backs.get(to)
        return back if back is not None and self.direct(back) else None

    def direct(self, uid: Uid) -> bool:
        """There is a link to it that is not silent."""
        return uid in self._linked and not self._evidence.silent(uid)

    def _edge(self, a: Uid, b: Uid) -> bool:
        lost = self._evidence.denied((a, b)) or b in self._evidence.dead
        return not lost
