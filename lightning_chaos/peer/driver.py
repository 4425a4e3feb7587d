"""Drives one membership on real sockets, timers and processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from lightning_chaos.errors import AddressError, ChaosError, WireError
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.peer.discovery import LOCK_WAIT_S, DiscoveryDir
from lightning_chaos.peer.doorkeeper import Doorkeeper
from lightning_chaos.peer.links import Links
from lightning_chaos.peer.machine import machine_key, process_gone, process_stopped
from lightning_chaos.peer.planner import Planner
from lightning_chaos.peer.search import AddressSearch, DirectorySearch, NotYet, Search
from lightning_chaos.protocol import local
from lightning_chaos.protocol.events import (
    Action,
    Connect,
    Event,
    FromWorker,
    Hangup,
    Heard,
    Level,
    Linked,
    Log,
    ProcessGone,
    Quit,
    Redial,
    Replan,
    Searched,
    Send,
    Tell,
    Tick,
    Unlinked,
    WorkerGone,
)
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.messages import Status
from lightning_chaos.protocol.values import Member, Uid
from lightning_chaos.protocol.wishes import node_of
from lightning_chaos.transport.address import Address, parse_address
from lightning_chaos.transport.channel import Channel
from lightning_chaos.transport.relayed import dialler_for

QUIT_MARGIN_S = 5.0
"""How much later than ``linger`` a peer without a worker ends at the latest, seconds."""
_FLUSH_S = 1.0
_SEARCH_AGAIN_S = 1.0
_LEVELS = {
    Level.DEBUG: logging.DEBUG,
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
}
_logger = logging.getLogger(__name__)


class Driver:
    """One peer: feeds the state machine with what happens and does what it says.

    Args:
        config: the worker's settings.
        door: the node's listening socket.
        worker: channel to the worker.
        handover: socket over which accepted data connections go to the worker.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        config: PeerConfig,
        door: socket.socket,
        worker: Channel,
        handover: socket.socket,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._door = door
        self._worker = worker
        self._handover = handover
        self._clock = clock
        self._parent = os.getppid()
        self._gather = config.gather and not config.peers
        self.me = Member(
            node=config.node,
            incarnation=time.time_ns(),
            host=config.host,
            port=door.getsockname()[1],
            machine=machine_key(),
            pid=os.getpid(),
            past=config.past,
        )
        self._membership = Membership(
            self.me,
            run=config.run,
            min_members=config.min_members,
            timeout_s=config.timeout_s,
            worker_timeout_s=config.worker_timeout_s,
            linger_s=config.linger_s,
            base_epoch=config.base_epoch,
            alone=config.alone,
            generation=config.generation,
            guarded=self._gather,
        )
        self._events: deque[Event] = deque()
        self._stepping = False
        self._stepped = asyncio.Event()
        self._ends_at = float("inf")
        self._over = asyncio.Event()
        self._known: dict[Uid, Member] = {}
        self._lost: dict[Uid, Member] = {}
        self._viewless: set[Uid] = set()
        self._directory: DiscoveryDir | None = None
        self._may_be_found = True
        self._waiting = ""
        self._stopped_since: float | None = None

    def story(self) -> str:
        """Who says it, epoch and round, for log lines."""
        return f"{self._config.node} {self._membership.story()}"

    async def run(self) -> None:
        """Take part in the run until the state machine quits or the worker is gone."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        try:
            async with asyncio.TaskGroup() as group:
                self._links = Links(
                    self.me,
                    self._config.run,
                    timeout_s=self._config.timeout_s,
                    insecure=self._config.insecure,
                    emit=self._on_link_event,
                    in_view=self._in_view,
                    spawn=group.create_task,
                    dialler=dialler_for(self._config.relay, self._config.node),
                )
                self._planner = Planner(self._feed, group.create_task)
                self._doorkeeper = Doorkeeper(
                    self._door, self._handover, self._links.adopt, group.create_task
                )
                jobs = (
                    *(self._doorkeeper.run(), self._tick(), self._hear_worker()),
                    *(self._search(), self._seek()),
                )
                tasks = [group.create_task(job) for job in jobs]
                await self._over.wait()
                self._leave_directory()
                self._worker.close()
                await self._links.aclose(_FLUSH_S)
                for task in tasks:
                    task.cancel()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FLUSH_S):
                        await self._worker.wait_closed()
        finally:
            self._leave_directory()
            self._worker.abort()
            loop.remove_signal_handler(signal.SIGTERM)

    # ---- events in, actions out ------------------------------------------------------------

    def _feed(self, event: Event) -> None:
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events and not self._over.is_set():
                for action in self._membership.step(self._clock(), self._events.popleft()):
                    self._do(action)
        finally:
            self._stepping = False
        self._stepped.set()

    def _do(self, action: Action) -> None:
        match action:
            case Send(to=to, message=message):
                self._links.send(to, message)
            case Connect(member=member):
                self._known[member.uid] = member
                self._links.connect(member)
            case Hangup(uid=uid, reason=reason):
                _logger.debug("hang up on %s: %s", uid, reason)
                self._links.hang_up(uid)
            case Redial(uid=uid, reason=reason):
                self._links.redial(uid, reason)
            case Tell(message=message):
                self._worker.send(local.encode_local(message))
                if isinstance(message, local.Refused | local.Removed | local.RunOver):
                    self._leave_directory()
            case Replan():
                self._planner.start(action)
            case Log(level=level, text=text):
                _logger.log(_LEVELS[level], "%s", text)
            case Quit(reason=reason):
                _logger.debug("the peer ends: %s", reason)
                self._over.set()

    def _on_link_event(self, event: Event) -> None:
        match event:
            case Linked(member=member):
                self._known[member.uid] = member
                self._lost.pop(member.uid, None)
                _logger.debug("linked to %s at %s", member.uid, member.address)
            case Unlinked(uid=uid, reason=reason):
                _logger.debug("no link to %s: %s", uid, reason)
                known = self._known.get(uid)
                if known is not None and known.machine and known.machine == self.me.machine:
                    self._lost[uid] = known
            case Heard(sender=uid, message=Status(epoch=0)):
                self._viewless.add(uid)
        self._feed(event)
        if isinstance(event, Unlinked):
            self._viewless.discard(event.uid)
            self._check_lost()

    def _in_view(self, uid: Uid) -> bool:
        view = self._membership.view
        return view is not None and view.find(uid) is not None

    # ---- time ------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._config.timeout_s / 20)
            if os.getppid() != self._parent:
                # Children that the worker forked may hold its end of the channel open.
                self._end("the worker's process is gone", self._config.linger_s + QUIT_MARGIN_S)
            self._check_stopped()
            self._check_lost()
            self._feed(Tick())
            self._known = {
                uid: member
                for uid, member in self._known.items()
                if uid in self._links.up or self._in_view(uid)
            }

    def _check_stopped(self) -> None:
        """A worker that holds others up by being stopped has no seat; it comes back later."""
        view = self._membership.view
        if view is None or len(view.members) == 1 or not process_stopped(self._parent):
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = self._clock()
        elif self._clock() - self._stopped_since > self._config.timeout_s:
            self._end(
                f"its worker was stopped for more than {self._config.timeout_s:g} s", _FLUSH_S
            )

    def _check_lost(self) -> None:
        """Tell of unlinked peers of this machine whose process is gone."""
        for uid, member in list(self._lost.items()):
            if process_gone(member.pid):
                del self._lost[uid]
                self._feed(ProcessGone(uid))
            elif uid not in self._known:
                del self._lost[uid]

    # ---- worker ----------------------------------------------------------------------------

    async def _hear_worker(self) -> None:
        reason = "the worker closed its channel"
        try:
            while (data := await self._worker.receive()) is not None:
                self._feed(FromWorker(local.decode_local(data)))
        except WireError as error:
            reason = f"the worker is not understood: {error}"
            _logger.warning("%s", reason)
        self._end(reason, self._config.linger_s + QUIT_MARGIN_S)

    def _on_sigterm(self) -> None:
        self._end("the peer was told to end", _FLUSH_S)

    def _end(self, reason: str, bound_s: float) -> None:
        """Let the state machine say the last word; end in time even if it does not quit."""
        loop = asyncio.get_running_loop()
        first, ends_at = not self._ending, loop.time() + bound_s
        if ends_at < self._ends_at:
            self._ends_at = ends_at
            loop.call_at(ends_at, self._over.set)
        if first:
            self._feed(WorkerGone(reason))
            if not self._over.is_set():
                _let_go_of_output()

    @property
    def _ending(self) -> bool:
        return self._ends_at < float("inf")

    # ---- search ----------------------------------------------------------------------------

    async def _search(self) -> None:
        """Look for the run, again and again, until the state machine knows where it stands."""
        try:
            self._config.check_host()
            directory = self._open_directory()
        except AddressError as error:
            self._feed(Searched(exclusive=False, problem=str(error)))
            return
        known = tuple(parse_address(text) for text in self._config.known)
        search: Search = DirectorySearch(
            self._links, self.me, directory, known=known, gather=self._gather
        )
        if self._config.peers:
            search = AddressSearch(self._links, self.me, self._config.peers, known=known)
            self._doorkeeper.greet()
        patience_ends = self._clock() + self._config.worker_timeout_s
        while self._membership.searching and not self._ending:
            async with search.attempt() as found:
                if self._gather:
                    await self._hear_out()
                result = self._judge(found, directory, patience_ends)
                if not isinstance(result, NotYet):
                    if not result.problem and self._may_be_found:
                        directory.add(self.me)
                    if not self._membership.acceptors:
                        await self._hear_out()
                    self._feed(result)
                    # Not earlier: a caller without a view would look like somebody to wait for,
                    # when this node finds nobody in the directory and must found the run at once.
                    self._doorkeeper.greet()
                    await self._wait_for_answer(result.exclusive)
                elif self._gather and self._may_be_found:
                    directory.add(self.me, candidate=True)
            if isinstance(result, NotYet):
                await self._wait_a_little(result.reason)
        if self._gather and self._membership.view is not None and self._may_be_found:
            directory.add(self.me)

    async def _seek(self) -> None:
        """Call where those were without whom this lineage went on: perhaps they went on too."""
        while True:
            await asyncio.sleep(self._config.timeout_s)
            view = self._membership.view
            here = {self._config.node, *(node_of(uid) for uid in self._links.up)}
            for member in view.sought if view is not None else ():
                if member.node not in here:
                    with contextlib.suppress(OSError, ChaosError):
                        address = Address(member.host, member.port)
                        await self._links.meet(address, self._config.timeout_s)

    async def _wait_a_little(self, reason: str) -> None:
        """Before the next look; a candidate lets the others come to it meanwhile."""
        if reason != self._waiting:
            self._waiting = reason
            _logger.info("waiting: %s", reason)
        if self._gather:
            self._doorkeeper.greet()
            self._feed(Searched(exclusive=False))
        await asyncio.sleep(_SEARCH_AGAIN_S / 10)

    def _judge(
        self, found: Searched, directory: DiscoveryDir, patience_ends: float
    ) -> Searched | NotYet:
        """Whether that is the answer, or there is something to wait for."""
        if found.problem:
            return found
        if self._gather and self._must_gather(directory):
            here, needed = self._membership.candidates, self._config.min_members
            return NotYet(f"{here} of {needed} nodes are here to found the run")
        return self._no_run_yet(patience_ends) or found

    def _must_gather(self, directory: DiscoveryDir) -> bool:
        """Nobody has founded the run, as far as one can see, and this node may not yet.

        Who has accepted this node has not founded; of others one cannot be sure.
        """
        inside = {entry.uid for entry in directory.inside()} - {self.me.uid}
        acceptors = self._membership.acceptors
        return inside <= self._viewless and not (acceptors and inside <= acceptors)

    def _no_run_yet(self, patience_ends: float) -> Searched | NotYet | None:
        """A node that may not found the run waits for it, but not for ever."""
        if self._config.may_found or self._links.up:
            return None
        if self._clock() < patience_ends:
            return NotYet(f"there is no run {self._config.run} to join yet")
        waited = f"{self._config.worker_timeout_s:g} s"
        return Searched(
            exclusive=False,
            problem=f"there is no run {self._config.run} to join, waited {waited}: start a node "
            "that may found it (without join_at_round, CHAOS_JOIN_AT)",
        )

    def _open_directory(self) -> DiscoveryDir:
        root = Path(self._config.discovery) if self._config.discovery else None
        self._directory = DiscoveryDir(self._config.run, root)
        return self._directory

    async def _hear_out(self) -> None:
        """Let all who are linked say where they stand: one with a view must not be out-founded."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.timeout_s):
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

    def _leave_directory(self) -> None:
        self._may_be_found = False
        if self._directory is not None:
            self._directory.remove(self.me.uid)


def _let_go_of_output() -> None:
    """A peer that lingers must not keep open what somebody reads the worker's output from."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
