"""Other peers on this same machine: of them one knows for sure when their process is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lightning_chaos.peer.machine import process_gone
from lightning_chaos.protocol.values import Member, Uid


class Housemates:
    """Peers of this machine that are no longer linked, until their process is gone.

    Args:
        machine: what this peer's machine is called; '' if it cannot tell.
    """

    def __init__(self, machine: str) -> None:
        self._machine = machine
        self._known: dict[Uid, Member] = {}
        self._lost: dict[Uid, Member] = {}

    def know(self, member: Member) -> None:
        """It is linked, or to be linked."""
        if self._machine and member.machine == self._machine:
            self._known[member.uid] = member

    def linked(self, uid: Uid) -> None:
        """It is not lost."""
        self._lost.pop(uid, None)

    def unlinked(self, uid: Uid) -> None:
        """Watch its process from now on."""
        if uid in self._known:
            self._lost[uid] = self._known[uid]

    def gone(self) -> Iterator[Uid]:
        """Those whose process has ended; each is told once."""
        for uid, member in list(self._lost.items()):
            if process_gone(member.pid):
                del self._lost[uid]
                yield uid
            elif uid not in self._known:
                del self._lost[uid]

    def keep_only(self, needed: Callable[[Uid], bool]) -> None:
        """Forget those that nobody needs any more."""
        self._known = {uid: member for uid, member in self._known.items() if needed(uid)}
