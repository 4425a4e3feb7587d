"""Looking for the run: at given addresses, or in this machine's discovery directory.

The result is one :class:`Searched` per attempt; whoever answered is linked by then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from lightning_chaos.errors import AddressError, ChaosError
from lightning_chaos.peer.caller import in_words
from lightning_chaos.peer.discovery import DiscoveryDir, Entry
from lightning_chaos.protocol.events import Searched
from lightning_chaos.protocol.values import Member, Uid
from lightning_chaos.transport.address import Address, is_loopback, parse_address

PATIENCE_S = 10.0
"""How long nodes that should be there are called, seconds."""
CANDIDATE_PATIENCE_S = 2.0
"""The same for a node that is on its own list and may found the run if nobody answers."""
SETTLE_S = 0.5
"""How long the others have once one has answered, seconds."""
_RETRY_S = 0.1


class Meeting(Protocol):
    """What a search needs of the links."""

    async def meet(self, address: Address, timeout_s: float) -> Member:
        """See :meth:`lightning_chaos.peer.links.Links.meet`."""
        ...

    @property
    def up(self) -> Collection[Uid]:
        """Who is linked."""
        ...


@dataclass(frozen=True, slots=True)
class NotYet:
    """There is no run, and this node does not found it now: look again soon."""

    reason: str
    """For people; '' if they are told already."""


class Search(Protocol):
    """One way to look for the run; may be tried again."""

    def attempt(self) -> contextlib.AbstractAsyncContextManager[Searched]:
        """Look once; the result holds until the block ends."""
        ...


class _Calls:
    """Calls to many addresses at once, and what came of each."""

    def __init__(self, links: Meeting) -> None:
        self._links = links
        self.met: dict[Address, Uid] = {}
        self.failed: dict[Address, Exception] = {}

    def why(self, address: Address) -> str:
        """Why nobody answered there."""
        error = self.failed.get(address)
        return in_words(error) if error else "no answer"

    @property
    def answered(self) -> bool:
        """Somebody who answered is linked."""
        return any(uid in self._links.up for uid in self.met.values())

    @property
    def refused(self) -> bool:
        """Somebody answered that it will never take this node."""
        return any(isinstance(error, ChaosError) for error in self.failed.values())

    async def make(
        self,
        addresses: Iterable[Address],
        patience_s: float,
        worthwhile: Callable[[Address], bool] = lambda _: True,
    ) -> None:
        """Call all until one answers and the others have had :data:`SETTLE_S` more.

        Args:
            addresses: whom to call.
            patience_s: how long to go on while nobody answers, seconds.
            worthwhile: whether an address that did not answer should be called again.
        """
        deadline = asyncio.get_running_loop().time() + patience_s
        tasks = {asyncio.ensure_future(self._call(a, deadline, worthwhile)) for a in addresses}
        try:
            waiting = tasks
            while waiting and not self.answered:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if waiting:
                await asyncio.wait(waiting, timeout=SETTLE_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _call(
        self, address: Address, deadline: float, worthwhile: Callable[[Address], bool]
    ) -> None:
        loop = asyncio.get_running_loop()
        if self.met.get(address) in self._links.up:
            return
        while (left := deadline - loop.time()) > 0 and worthwhile(address):
            try:
                self.met[address] = (await self._links.meet(address, left)).uid
                self.failed.pop(address, None)
                return
            except OSError as error:
                # A last call, cut short by the deadline, says less than one before it.
                if address not in self.failed or loop.time() < deadline:
                    self.failed[address] = error
            except ChaosError as error:
                self.failed[address] = error
                return
            await asyncio.sleep(_RETRY_S)


class AddressSearch:
    """Asks every address of a list.

    Args:
        links: to dial with.
        me: this incarnation; it may found the run if its own address is on the list.
        addresses: ``host:port`` each.
        known: where others were last; asked too, but they need not answer.
        patience_s: how long to go on while nobody answers, seconds.
        candidate_patience_s: the same when this node may found the run.
    """

    def __init__(
        self,
        links: Meeting,
        me: Member,
        addresses: tuple[str, ...],
        *,
        known: tuple[Address, ...] = (),
        patience_s: float = PATIENCE_S,
        candidate_patience_s: float = CANDIDATE_PATIENCE_S,
    ) -> None:
        self._me = me
        self._texts = addresses
        self._known = known
        self._patience_s = patience_s
        self._candidate_patience_s = candidate_patience_s
        self._links = links
        self._calls = _Calls(links)

    @contextlib.asynccontextmanager
    async def attempt(self) -> AsyncIterator[Searched]:
        """See :class:`Search`."""
        yield await self._search()

    async def _search(self) -> Searched:
        try:
            addresses = [parse_address(text) for text in self._texts]
        except AddressError as error:
            return Searched(exclusive=False, problem=str(error))
        others = [a for a in addresses if not self._is_mine(a)]
        listed = len(others) < len(addresses)
        calls = self._calls
        asked = dict.fromkeys([*others, *self._known])
        await calls.make(asked, self._candidate_patience_s if listed else self._patience_s)
        listed = listed or self._me.uid in calls.met.values()
        if calls.answered or (listed and not calls.refused):
            silent = tuple(str(a) for a in others if calls.met.get(a) not in self._links.up)
            return Searched(exclusive=False, silent=silent)
        why = "; ".join(f"{a}: {calls.why(a)}" for a in others)
        return Searched(
            exclusive=False,
            problem=f"none of the peers given takes this node in: {why}. Start one node without "
            "peers (peers=, CHAOS_PEERS) to found a run, or correct the list",
        )

    def _is_mine(self, address: Address) -> bool:
        if address.port != self._me.port:
            return False
        both_loopback = is_loopback(address.host) and is_loopback(self._me.host)
        return both_loopback or address.host == self._me.host


class DirectorySearch:
    """Asks every live node in the discovery directory, under its lock.

    If several are to meet before one founds the run, each shows itself there as a candidate, and
    they are linked here; but who has won founds only under the lock, so no two do.

    Args:
        links: to dial with.
        me: this incarnation.
        directory: where this machine's nodes of the run are found.
        known: where others were last; asked too, but they need not answer.
        gather: candidates are to meet before one of them founds.
        patience_s: how long a live node may leave a call unanswered, seconds.
    """

    def __init__(
        self,
        links: Meeting,
        me: Member,
        directory: DiscoveryDir,
        *,
        known: tuple[Address, ...] = (),
        gather: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._links = links
        self._me = me
        self._directory = directory
        self._known = known
        self._gather = gather
        self._patience_s = patience_s

    @contextlib.asynccontextmanager
    async def attempt(self) -> AsyncIterator[Searched]:
        """See :class:`Search`; the directory's lock is held until the block ends."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._directory.founding())
            except AddressError as error:
                yield Searched(exclusive=False, problem=str(error))
                return
            yield await self._search()

    async def _search(self) -> Searched:
        calls = _Calls(self._links)
        addresses = {*self._directory.live(), *self._known}
        await calls.make(
            addresses,
            self._patience_s,
            lambda a: a in self._directory.live() or (a in self._known and a not in calls.failed),
        )
        if calls.answered:
            return Searched(exclusive=True)
        silent = [e for e in self._directory.inside() if not self._forget_stale(e, calls)]
        if not silent:
            if self._gather:
                await self._meet_candidates()
            return Searched(exclusive=True)
        nodes = "; ".join(
            f"node {e.node} (process {e.pid}): {calls.why(e.address)}" for e in silent
        )
        return Searched(
            exclusive=True,
            problem=f"this run has live nodes that do not take this one in: {nodes}. End them or "
            "choose another run (run=, CHAOS_RUN)",
        )

    async def _meet_candidates(self) -> None:
        """Call those that are not linked, briefly: one that hangs must not hold the others up."""
        known = {*self._links.up, self._me.uid}
        others = {e.address for e in self._directory.candidates() if e.uid not in known}
        if others:
            await _Calls(self._links).make(others, SETTLE_S)

    def _forget_stale(self, entry: Entry, calls: _Calls) -> bool:
        """Remove the file of a node whose process cannot be checked but whose door is gone."""
        refused = isinstance(calls.failed.get(entry.address), ConnectionRefusedError)
        mine = calls.met.get(entry.address) == self._me.uid
        if entry.checkable or not (refused or mine):
            return False
        self._directory.remove(entry.uid)
        return True
