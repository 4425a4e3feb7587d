"""Slow members: shown to people, and, by policy, sent to stand by (design §6)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_chaos.skin.rounds import Rounds

if TYPE_CHECKING:
    from lightning_chaos.data.paces import Change
    from lightning_chaos.protocol.values import Uid

log = logging.getLogger(__name__)
STANDBY_ROUNDS = 100
"""A slow member stands by for so many rounds, the next time for twice as many, and so on."""


class SlowMembers(Rounds):
    """Tells who is slow, and gives this node's own seat back for a while if that is the policy."""

    def __init__(self, **lightning: Any) -> None:
        super().__init__(**lightning)
        self._rest = STANDBY_ROUNDS
        self._said: tuple[Uid, tuple[Uid, ...]] = "", ()

    def _take_note(self, members: Sequence[Uid], changes: Sequence[Change]) -> None:
        """Tell what has changed.

        Args:
            members: of the round, oldest first.
            changes: as :meth:`Samples.commit` gave them.
        """
        if self.settings.replay:
            return  # it has been told
        assert self._samples is not None
        slow = self._samples.paces.slow
        if self._said != (self.node.uid, slow):  # its peer may be a new one
            self._said = self.node.uid, slow
            self.node.tell_slow(slow)
        for change in changes:
            self._tell_of(change)
        if self.settings.slow == "standby" and self.standby_until is None:
            spare = len(members) - max(1, self.settings.min_members)
            # All members know the same figures: the youngest of the slow ones go.
            if spare > 0 and self.node.uid in slow[-spare:]:
                self._stand_by()

    def _tell_of(self, change: Change) -> None:
        if change.uid == self.node.uid:
            self.node.log(
                "slow",
                round=self.node.round,
                slow=change.slow,
                seconds=change.seconds,
                usual=change.usual,
                share=change.share,
            )
        if change.turned:
            name = change.uid.rpartition("/")[0]
            if change.slow:
                log.warning(
                    "%s is slow: it computes %.2f s a round, usual are %.2f s; %s",
                    name,
                    change.seconds,
                    change.usual,
                    {
                        "keep": 'all wait for it (slow="share" would give it fewer samples)',
                        "share": f"it takes {change.share} samples a round from now on",
                        "standby": "it is to stand by",
                    }[self.settings.slow],
                )
            else:
                log.info("%s is no longer slow (%.2f s a round)", name, change.seconds)

    def _stand_by(self) -> None:
        self.standby_until = self.node.round + self._rest
        log.warning("this node gives its seat back and stands by for %d rounds", self._rest)
        self._rest *= 2
        self.node.give_seat_back()
