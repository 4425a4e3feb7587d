"""Drives one membership on real sockets, timers and processes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable

from lightning_chaos.peer.caller import Caller
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.peer.doorkeeper import Doorkeeper
from lightning_chaos.peer.housemates import Housemates
from lightning_chaos.peer.links import Links
from lightning_chaos.peer.machine import machine_key
from lightning_chaos.peer.planner import Planner
from lightning_chaos.peer.quest import Quest
from lightning_chaos.peer.ward import Ward
from lightning_chaos.protocol import local
from lightning_chaos.protocol.events import (
    Action,
    Connect,
    Event,
    Hangup,
    Level,
    Linked,
    Log,
    ProcessGone,
    Quit,
    Redial,
    Replan,
    Send,
    Tell,
    Tick,
    Unlinked,
    WorkerGone,
)
from lightning_chaos.protocol.membership import Membership
from lightning_chaos.protocol.values import Member, Uid
from lightning_chaos.transport.channel import Channel
from lightning_chaos.transport.relayed import dialler_for

TICKS = 20
"""In one timeout, and between two words that the worker's peer lives."""
LONGEST_BEAT_S = 1.0
"""However long the timeout is, the worker hears at least so often that its peer lives, seconds."""
_FLUSH_S = 1.0
_PARTINGS = local.Refused | local.Removed | local.GaveUp | local.RunOver
"""After these words this node can show nobody the way to the run."""
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
            worker_timeout_s=config.patience_s,
            linger_s=config.linger_s,
            start_timeout_s=config.start_timeout_s,
            quorum_timeout_s=config.quorum_timeout_s,
            base_epoch=config.base_epoch,
            alone=config.alone,
            generation=config.generation,
            guarded=config.gather and not config.peers,
        )
        self._events: deque[Event] = deque()
        self._lines: deque[Log] = deque()
        self._stepping = False
        self._over = asyncio.Event()
        self._planner = Planner(self._feed)
        self._housemates = Housemates(self.me.machine)
        self._ward = Ward(worker, linger_s=config.linger_s, feed=self._feed, over=self._over.set)

    def story(self) -> str:
        """Who says it, epoch and round, for log lines."""
        return f"{self._config.node} {self._membership.story()}"

    async def run(self) -> None:
        """Take part in the run until the state machine quits or the worker is gone."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                doorkeeper = self._furnish(group)
                loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
                jobs = (
                    *(doorkeeper.run(), self._tick(), self._ward.hear(), self._planner.run()),
                    *(self._quest.run(), self._quest.seek()),
                )
                tasks = [group.create_task(job) for job in jobs]
                try:
                    await self._over.wait()
                finally:
                    self._quest.hide()
                self._worker.close()
                await self._links.aclose(_FLUSH_S)
                for task in tasks:
                    task.cancel()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FLUSH_S):
                        await self._worker.wait_closed()
        finally:
            self._worker.abort()
            loop.remove_signal_handler(signal.SIGTERM)

    def _furnish(self, group: asyncio.TaskGroup) -> Doorkeeper:
        """Make what needs a task group."""
        config = self._config
        self._links = Links(
            Caller(
                self.me,
                config.run,
                insecure=config.insecure,
                dialler=dialler_for(config.relay, config.node),
            ),
            timeout_of=self._membership.timeouts.of,
            emit=self._on_link_event,
            in_view=self._in_view,
            spawn=group.create_task,
        )
        door, handover = self._door, self._handover
        doorkeeper = Doorkeeper(door, handover, self._links.adopt, group.create_task)
        self._quest = Quest(
            config, self._membership, self._links, doorkeeper, self._feed, self._clock
        )
        return doorkeeper

    # ---- events in, actions out ------------------------------------------------------------

    def _feed(self, event: Event) -> None:
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events and not self._over.is_set():
                self._membership.take(self._clock(), self._events.popleft(), self._do)
                while self._lines:  # nobody waits for what is only written down
                    line = self._lines.popleft()
                    _logger.log(_LEVELS[line.level], "%s", line.text)
        finally:
            self._stepping = False
        self._quest.stepped()
        if isinstance(event, WorkerGone) and not self._over.is_set():
            _let_go_of_output()

    def _do(self, action: Action) -> None:
        match action:
            case Send(to=to, message=message):
                self._links.send(to, message)
            case Connect(member=member):
                self._housemates.know(member)
                self._links.connect(member)
            case Hangup(uid=uid, reason=reason):
                _logger.debug("hang up on %s: %s", uid, reason)
                self._links.hang_up(uid)
            case Redial(uid=uid, reason=reason):
                self._links.redial(uid, reason)
            case Tell(message=message):
                self._worker.send(local.encode_local(message))
                if isinstance(message, _PARTINGS):
                    self._quest.hide()
            case Replan():
                self._planner.ask(action)
            case Log():
                self._lines.append(action)
            case Quit(reason=reason):
                _logger.debug("the peer ends: %s", reason)
                self._over.set()

    def _on_link_event(self, event: Event) -> None:
        match event:
            case Linked(member=member):
                self._housemates.know(member)
                self._housemates.linked(member.uid)
                if self._in_view(member.uid):
                    self._worker.send(local.encode_local(local.Reached(member.uid)))
                _logger.debug("linked to %s at %s", member.uid, member.address)
            case Unlinked(uid=uid, reason=reason):
                self._housemates.unlinked(uid)
                _logger.debug("no link to %s: %s", uid, reason)
        self._quest.saw(event)
        self._feed(event)
        if isinstance(event, Unlinked):
            self._check_housemates()

    def _in_view(self, uid: Uid) -> bool:
        view = self._membership.view
        return view is not None and view.find(uid) is not None

    def _on_sigterm(self) -> None:
        self._ward.end("the peer was told to end", linger=False)

    # ---- time ------------------------------------------------------------------------------

    async def _tick(self) -> None:
        tick_s = min(LONGEST_BEAT_S, self._membership.timeouts.least_s) / TICKS
        for count in itertools.count():
            if count % TICKS == 0:
                self._worker.send(local.encode_local(local.Beat()))
            due = self._clock() + tick_s
            await asyncio.sleep(tick_s)
            now = self._clock()
            view = self._membership.view
            needed = view is not None and len(view.members) > 1
            self._ward.check(now, self._membership.timeouts.least_s, needed=needed)
            self._check_housemates()
            self._feed(Tick(now - due if now - due > tick_s else 0.0))

    def _check_housemates(self) -> None:
        """Tell of unlinked peers of this machine whose process is gone."""
        for uid in self._housemates.gone():
            self._feed(ProcessGone(uid))
        up = self._links.up
        self._housemates.keep_only(lambda uid: uid in up or self._in_view(uid))


def _let_go_of_output() -> None:
    """A peer that lingers must not keep open what somebody reads the worker's output from."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
