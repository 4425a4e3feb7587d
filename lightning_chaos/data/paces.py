"""How long each member computes in a round, who is slow, and whose share is smaller (design §6).

Every member says in a round's header for how long it has computed.  What follows is decided by
each for itself, but from the same figures in the same order, so they all decide alike: nobody has
to be asked, and a newcomer pulls the figures with the rest of the state.

Model: *usual* is the (lower) median of what members with a full share take.  A share is chosen so
that its member takes no longer than that, as if its time were proportional to its samples.  Where
a round has costs of its own, the next decision, made from rounds with the smaller share, corrects
what is left of the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any, Literal

import msgspec

from lightning_chaos.protocol.values import Uid

SlowMode = Literal["keep", "share", "standby"]

SLOW = 3.0
"""A member is slow when it takes so many times as long as usual …"""
SLOW_LEAST_S = 0.02
"""… and that is so many seconds a round …"""
WELL = 1.25
"""… until it takes no longer than so many times as usual."""
ROUNDS = 3
"""Nothing is decided before so many rounds: the first may have compiled or filled caches."""
WINDOW = 5
"""Of the last so many rounds the median counts."""


class Pace(msgspec.Struct, frozen=True):
    """What is known of one member."""

    seconds: tuple[float, ...] = ()
    """What it took for its last rounds with the present share, oldest first."""
    share: int = 0
    """Samples that it takes in a round, 0 for a full share."""
    slow: bool = False

    @property
    def typical(self) -> float | None:
        """Seconds of a round, None while too few are known."""
        return median_low(self.seconds) if len(self.seconds) >= ROUNDS else None

    def after(self, seconds: float) -> Pace:
        """With one more round."""
        return msgspec.structs.replace(self, seconds=(*self.seconds, seconds)[-WINDOW:])


@dataclass(frozen=True, slots=True)
class Change:
    """A member is slow from now on, or no longer, or has another share."""

    uid: Uid
    slow: bool
    turned: bool
    """It was not so before: only its share has changed if False."""
    seconds: float
    """What it took for a round."""
    usual: float
    """What members with a full share take, seconds."""
    share: int
    """Samples it takes in a round from now on."""


class Paces:
    """Folds the figures of the rounds.

    Args:
        mode: what becomes of a slow member.
    """

    def __init__(self, mode: SlowMode) -> None:
        self.mode = mode
        self._full = 0
        self._of: dict[Uid, Pace] = {}

    @property
    def slow(self) -> tuple[Uid, ...]:
        """Members that are slow, oldest first."""
        return tuple(uid for uid, pace in self._of.items() if pace.slow)

    def shares(self, uids: Sequence[Uid], full: int) -> tuple[int, ...]:
        """Samples that each of these takes in the next round.

        Args:
            uids: who shares it, oldest first.
            full: samples of a full share.
        """
        known = self._of if full == self._full else {}
        return tuple((known[uid].share or full) if uid in known else full for uid in uids)

    def note(
        self, uids: Sequence[Uid], samples: Sequence[int], seconds: Sequence[float], full: int
    ) -> list[Change]:
        """Take in what the header of a round says; what changes with the next round.

        Args:
            uids: who contributed, oldest first.
            samples: that each had computed on.
            seconds: for how long.
            full: samples of a full share.
        """
        if full != self._full:
            self._full, self._of = full, {}
        whole = tuple(samples) == self.shares(uids, full)
        self._of = {uid: self._of.get(uid, Pace()) for uid in uids}
        if not whole:  # the shorter round at the end of an epoch
            return []
        for uid, took in zip(uids, seconds, strict=True):
            self._of[uid] = self._of[uid].after(took)
        return self._judge()

    def _judge(self) -> list[Change]:
        norm = [pace for pace in self._of.values() if not pace.share]
        known = [pace.typical for pace in norm if pace.typical is not None]
        if norm and not known:
            return []
        changes: list[Change] = []
        for uid, pace in self._of.items():
            took = pace.typical
            if took is None:
                continue
            # Those who were the norm have gone: nobody is slow any more.
            usual = median_low(known) if known else took
            new = self._new(pace, took, usual) if known else Pace()
            if new != pace:
                self._of[uid], turned = new, new.slow != pace.slow
                changes.append(Change(uid, new.slow, turned, took, usual, new.share or self._full))
        return changes

    def _new(self, pace: Pace, took: float, usual: float) -> Pace:
        much = took > SLOW * usual and took - usual > SLOW_LEAST_S
        much = much or (pace.slow and took > WELL * usual)
        if self.mode != "share":
            return msgspec.structs.replace(pace, slow=much)
        share = pace.share or self._full
        fitting = share * usual / took if took > 0 else self._full
        if much or (pace.share and fitting > share):
            new = self._full if fitting * WELL >= self._full else int(fitting)
            new = max(new, min(2, self._full))  # BatchNorm refuses to train on a single sample
            if new != share:  # what it took for another share says nothing of this one
                return Pace((), 0 if new == self._full else new, new < self._full)
        return msgspec.structs.replace(pace, slow=share < self._full or much)

    # ---- a part of the state ---------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What members share."""
        return {"full": self._full, "of": msgspec.to_builtins(self._of)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the run's."""
        self._full = int(state["full"])
        self._of = msgspec.convert(state["of"], dict[Uid, Pace])
