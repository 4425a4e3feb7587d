"""Data links that are not there: dialled until they are, complained of when it takes too long."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from lightning_chaos.collective.links import DataLinks, dials
from lightning_chaos.protocol.values import Member, Uid

NEVER = math.inf
"""Bound of a link that is not complained of, or was already."""
_RETRY_S = 0.05


@dataclass(slots=True, eq=False)
class _Lack:
    """A link that is not there."""

    member: Member
    reason: str
    """Why, for people; '' if it never was."""
    until: float
    """From then on it is complained of; :data:`NEVER` once it was. Seconds, monotonic."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """It may well work now."""


class Mending:
    """Makes links, one task for each.

    Args:
        me: this incarnation.
        links: where they are made.
        timeout_s: how long one call may take, seconds, as it is known now.
        wanted: whether a link to that one is of use still.
        complain: told of whose link is not there in time, and why.
        spawn: runs a task that ends with the station.
    """

    def __init__(
        self,
        me: Member,
        links: DataLinks,
        timeout_s: Callable[[], float],
        wanted: Callable[[Uid], bool],
        complain: Callable[[Uid, str], None],
        spawn: Callable[[Coroutine[Any, Any, Any]], None],
    ) -> None:
        self._me = me
        self._links = links
        self._timeout_s = timeout_s
        self._wanted = wanted
        self._complain = complain
        self._spawn = spawn
        self._lacks: dict[Uid, _Lack] = {}

    def begin(self, member: Member, reason: str, bound_s: float) -> None:
        """See that there will be a link; complain if there is none within so many seconds."""
        until = time.monotonic() + bound_s
        lack = self._lacks.get(member.uid)
        if lack is not None:
            lack.until = min(lack.until, until)
            return
        lack = self._lacks[member.uid] = _Lack(member, reason, until)
        self._spawn(self._mend(lack))

    def end(self, uid: Uid) -> None:
        """There is a link to that one."""
        self._lacks.pop(uid, None)

    def hurry(self, uid: Uid) -> None:
        """A call may well be answered now."""
        if (lack := self._lacks.get(uid)) is not None:
            lack.hurry.set()

    async def _mend(self, lack: _Lack) -> None:
        """Dial, or wait for a call, until there is a link or nobody wants one any more."""
        uid, why = lack.member.uid, ""
        while self._lacks.get(uid) is lack:
            if not self._wanted(uid):
                del self._lacks[uid]
                return
            if dials(self._me, lack.member):
                try:
                    await self._links.connect(lack.member, self._timeout_s())
                    return
                except OSError as error:
                    why = f"dialling it again: {error}" if lack.reason else str(error)
            if time.monotonic() >= lack.until and self._lacks.get(uid) is lack:
                lack.until = NEVER
                self._complain(uid, "; ".join(part for part in (lack.reason, why) if part))
            pause_s = _RETRY_S if lack.until < NEVER else self._timeout_s() / 2
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await lack.hurry.wait()
            lack.hurry.clear()
