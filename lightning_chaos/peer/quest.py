"""From a peer's start to the first view that it knows: it looks for the run, or founds it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from lightning_chaos.errors import AddressError, ChaosError
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.peer.discovery import LOCK_WAIT_S, DiscoveryDir
from lightning_chaos.peer.doorkeeper import Doorkeeper
from lightning_chaos.peer.links import Links
from lightning_chaos.peer.search import AddressSearch, DirectorySearch, NotYet, Search
from lightning_chaos.protocol.events import Event, Heard, Searched, Unlinked
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.messages import Status
from lightning_chaos.protocol.values import Uid
from lightning_chaos.protocol.wishes import node_of
from lightning_chaos.transport.address import Address, parse_address

_SEARCH_AGAIN_S = 1.0
_logger = logging.getLogger(__name__)


class Quest:
    """Looks for the run, again and again, until the state machine knows where it stands.

    Args:
        config: the worker's settings.
        membership: the state machine.
        links: to dial with.
        doorkeeper: lets others in once this peer knows what to tell them.
        feed: takes what was found.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        config: PeerConfig,
        membership: Membership,
        links: Links,
        doorkeeper: Doorkeeper,
        feed: Callable[[Searched], None],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._membership = membership
        self._me = membership.me
        self._links = links
        self._doorkeeper = doorkeeper
        self._feed = feed
        self._clock = clock
        self._viewless: set[Uid] = set()
        self._stepped = asyncio.Event()
        self._directory: DiscoveryDir | None = None
        self._may_be_found = True
        self._waiting = ""

    # ---- told by the driver ----------------------------------------------------------------

    def saw(self, event: Event) -> None:
        """What comes from the links, before the state machine has it."""
        match event:
            case Heard(sender=uid, message=Status(epoch=0)) if self._membership.searching:
                self._viewless.add(uid)
            case Unlinked(uid=uid):
                self._viewless.discard(uid)

    def stepped(self) -> None:
        """The state machine has taken something in: whoever waits looks again."""
        self._stepped.set()

    def hide(self) -> None:
        """Nobody shall find this peer any more."""
        self._may_be_found = False
        if self._directory is not None:
            self._directory.remove(self._me.uid)

    # ---- tasks -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Search until it is over."""
        try:
            self._config.check_host()
            directory = self._open_directory()
        except AddressError as error:
            self._feed(Searched(exclusive=False, problem=str(error)))
            return
        search, patience_ends = self._way(directory), self._clock() + self._config.start_timeout_s
        while self._membership.searching:
            async with search.attempt() as found:
                if self._gathers:
                    await self._hear_out()
                result = self._judge(found, directory, patience_ends)
                if isinstance(result, Searched):
                    await self._conclude(result, directory)
                elif self._gathers and self._may_be_found:
                    directory.add(self._me, candidate=True)
            if isinstance(result, NotYet):
                await self._wait_a_little(result.reason)
        if self._gathers and self._membership.view is not None and self._may_be_found:
            directory.add(self._me)

    async def seek(self) -> None:
        """Call where those were without whom this lineage went on: perhaps they went on too."""
        while True:
            timeout_s = self._membership.timeouts.longest_s
            await asyncio.sleep(timeout_s)
            view = self._membership.view
            here = {self._config.node, *(node_of(uid) for uid in self._links.up)}
            for member in view.sought if view is not None else ():
                if member.node not in here:
                    with contextlib.suppress(OSError, ChaosError):
                        address = Address(member.host, member.port)
                        await self._links.meet(address, timeout_s)

    # ---- one look --------------------------------------------------------------------------

    @property
    def _gathers(self) -> bool:
        """Candidates meet in the directory before one founds."""
        return self._config.gather and not self._config.peers

    def _open_directory(self) -> DiscoveryDir:
        root = Path(self._config.discovery) if self._config.discovery else None
        self._directory = DiscoveryDir(self._config.run, root)
        return self._directory

    def _way(self, directory: DiscoveryDir) -> Search:
        known = tuple(parse_address(text) for text in self._config.known)
        if self._config.peers:
            self._doorkeeper.greet()
            return AddressSearch(self._links, self._me, self._config.peers, known=known)
        return DirectorySearch(
            self._links, self._me, directory, known=known, gather=self._config.gather
        )

    def _judge(
        self, found: Searched, directory: DiscoveryDir, patience_ends: float
    ) -> Searched | NotYet:
        """Whether that is the answer, or there is something to wait for."""
        if found.problem:
            return found
        if self._gathers and self._must_gather(directory):
            return NotYet("")  # the state machine tells for whom
        return self._no_run_yet(patience_ends) or found

    def _must_gather(self, directory: DiscoveryDir) -> bool:
        """Nobody has founded the run, as far as one can see, and this node may not yet.

        Who has accepted this node has not founded; of others one cannot be sure.
        """
        inside = {entry.uid for entry in directory.inside()} - {self._me.uid}
        acceptors = self._membership.acceptors
        return inside <= self._viewless and not (acceptors and inside <= acceptors)

    def _no_run_yet(self, patience_ends: float) -> Searched | NotYet | None:
        """A node that may not found the run waits for it, but not for ever."""
        if self._config.may_found or self._links.up:
            return None
        if self._clock() < patience_ends:
            return NotYet(f"there is no run {self._config.run} to join yet")
        waited = f"{self._config.start_timeout_s:g} s"
        return Searched(
            exclusive=False,
            problem=f"there is no run {self._config.run} to join, waited {waited}: start a node "
            "that may found it (without join_at_round, CHAOS_JOIN_AT)",
        )

    async def _conclude(self, result: Searched, directory: DiscoveryDir) -> None:
        """Tell the state machine, and give it time to act on that."""
        if not result.problem and self._may_be_found:
            directory.add(self._me)
        if not self._membership.acceptors:
            await self._hear_out()
        self._feed(result)
        # Not earlier: a caller without a view would look like somebody to wait for,
        # when this node finds nobody in the directory and must found the run at once.
        self._doorkeeper.greet()
        await self._wait_for_answer(result.exclusive)

    # ---- waiting ---------------------------------------------------------------------------

    async def _wait_a_little(self, reason: str) -> None:
        """Before the next look; a candidate lets the others come to it meanwhile."""
        if reason and reason != self._waiting:
            self._waiting = reason
            _logger.info("waiting: %s", reason)
        if self._gathers:
            self._doorkeeper.greet()
            self._feed(Searched(exclusive=False))
        await asyncio.sleep(_SEARCH_AGAIN_S / 10)

    async def _hear_out(self) -> None:
        """Let all who are linked say where they stand: one with a view must not be out-founded."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._membership.timeouts.longest_s):
                while self._membership.searching and self._links.up - self._viewless:
                    self._stepped.clear()
                    await self._stepped.wait()

    async def _wait_for_answer(self, exclusive: bool) -> None:
        """Until the search is over, or it is time to look again.

        While this node alone may found the run it waits for those who are linked to tell their
        view; if all of them die before, it looks again at once.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOCK_WAIT_S if exclusive else _SEARCH_AGAIN_S):
                while self._membership.searching and (self._links.up or not exclusive):
                    self._stepped.clear()
                    await self._stepped.wait()
