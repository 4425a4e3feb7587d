"""Which way control messages go: straight, or through others that have a link (design §4)."""

from __future__ import annotations

from collections.abc import Collection, Set
from operator import itemgetter

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
        self._known: tuple[Set[Uid], int, dict[Uid, Uid]] | None = None
        """Within whom, after which change of what is known, and the ways."""

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

    def hop(self, to: Uid, within: Set[Uid]) -> Uid | None:
        """To whom to give a message for ``to``; None if no way is known.

        Nobody tells of links to those who are not in the view: the way to them is the one on
        which their last message came.

        Args:
            to: receiver.
            within: members and learners of the view, who pass messages on.
        """
        if self.direct(to):
            return to
        if to in within:
            return self._ways(within).get(to)
        # A stranger says nothing of its links: the way that it came is all that is known.
        back = self.backs.get(to)
        return back if back is not None and self.direct(back) else None

    def _ways(self, within: Set[Uid]) -> dict[Uid, Uid]:
        """The neighbour on the shortest way to each; worked out anew when something has changed.

        When a large view splits, half of it is asked for by every event.
        """
        known = self._known
        if known is None or known[0] is not within or known[1] != self._evidence.changes:
            known = self._known = within, self._evidence.changes, self._search(within)
        return known[2]

    def _search(self, within: Set[Uid]) -> dict[Uid, Uid]:
        """From neighbours to those that they have links to, and so on."""
        evidence = self._evidence
        firsts = {uid: uid for uid in within if self.direct(uid)}
        reached = firsts.keys() | evidence.dead.keys() | {self._me}
        left = [uid for uid in within if uid not in reached]
        layer = list(firsts)
        while layer and left:
            near, found = set(layer), []
            for uid in left:
                barred = evidence.barred(uid)
                if not near <= barred:
                    rank = next(i for i, one in enumerate(layer) if one not in barred)
                    firsts[uid] = firsts[layer[rank]]
                    found.append((rank, uid))
            left = [uid for uid in left if uid not in firsts]
            layer = [uid for _, uid in sorted(found, key=itemgetter(0))]
        return firsts

    def direct(self, uid: Uid) -> bool:
        """There is a link to it that is not silent."""
        return uid in self._linked and not self._evidence.silent(uid)
