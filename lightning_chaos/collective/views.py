"""The view that operations run under, and those planned for later rounds."""

from __future__ import annotations

from lightning_chaos.protocol.values import Uid, View


class Views:
    """What one exchange knows of views."""

    def __init__(self) -> None:
        self.in_force: View | None = None
        """Of the operation under way, or the last one."""
        self._planned: list[View] = []
        self._asked: set[tuple[Uid, int]] = set()

    @property
    def epoch(self) -> int:
        """Of the view in force, 0 if there is none."""
        return self.in_force.epoch if self.in_force else 0

    @property
    def newest(self) -> int:
        """Highest epoch known, 0 if none."""
        return self._planned[-1].epoch if self._planned else self.epoch

    def plan(self, view: View) -> None:
        """It serves from round ``view.switch`` on."""
        self._planned.append(view)
        self._forget()

    def impose(self, view: View) -> None:
        """It serves at once; what was planned is void."""
        self.in_force = view
        self._planned.clear()
        self._forget()

    def enter(self, round_: int) -> View | None:
        """The view under which an operation of that round begins."""
        while self._planned and self._planned[0].switch <= round_:
            self.in_force = self._planned.pop(0)
        return self.in_force

    def must_ask(self, uid: Uid, epoch: int) -> bool:
        """Whether that member, who speaks of an unknown view, has still to be asked for it."""
        fresh = (uid, epoch) not in self._asked
        self._asked.add((uid, epoch))
        return fresh

    def _forget(self) -> None:
        self._asked = {(uid, epoch) for uid, epoch in self._asked if epoch > self.newest}
