"""Which arriving frames one member takes, and where their payloads go."""

from __future__ import annotations

from lightning_chaos.collective.actions import Action, AskCommit, Landing, Misbehaved, Verdict
from lightning_chaos.collective.frames import Frame
from lightning_chaos.collective.layout import HEADER
from lightning_chaos.collective.operation import Operation
from lightning_chaos.collective.views import Views
from lightning_chaos.protocol.values import OpId, Uid


class Intake:
    """Judges frames by their heads.

    Args:
        views: that this member knows of.
        out: receives the actions.
    """

    def __init__(self, views: Views, out: list[Action]) -> None:
        self._views = views
        self._out = out

    def place(
        self, sender: Uid, frame: Frame, *, current: Operation | None, last: OpId, frozen: bool
    ) -> Landing | Verdict:
        """Where the payload of this frame goes, or why nowhere.

        Args:
            sender: who sent it.
            frame: its head.
            current: the operation under way.
            last: the last operation finished.
            frozen: a later view is to come, under which nothing of this one is wanted.
        """
        if frame.epoch > self._views.newest:
            if self._views.must_ask(sender, frame.epoch):
                self._out.append(AskCommit(sender, frame.epoch))
            return Verdict.PAUSE
        if frozen or frame.epoch < self._views.epoch or frame.op <= last:
            return Verdict.DROP
        if current is None or frame.op > current.op:
            return Verdict.PAUSE
        if current.surplus(sender, frame):
            return Verdict.DROP
        if frame.epoch > current.attempt.epoch or frame.op < current.op:
            reason = (
                f"sent operation {frame.op} under epoch {frame.epoch}; here it is "
                f"{current.op} under epoch {current.attempt.epoch}"
            )
            self._out.append(Misbehaved(sender, reason))
            return Verdict.DROP
        if frame.tag != current.tag and frame.chunk != HEADER:
            # Another operation under this number: the header will tell everybody which.
            return Verdict.DROP
        if fault := current.fault(sender, frame):
            self._out.append(Misbehaved(sender, fault))
            return Verdict.DROP
        return current.land(sender, frame)
