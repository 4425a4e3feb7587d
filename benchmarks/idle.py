"""Joins, leaves and link events among real peer processes whose workers only answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from lightning_chaos.peer.client import PeerClient, start_peer
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import OpId, Report, View
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.transport.door import open_door

MEMBERS = 4
PATIENCE_S = 30.0
SETTINGS = (("model", "m"),)
IDLE = Report(OpId(-1, 0), False, None, (), 0, (), -1)
"""What a worker that does nothing holds."""


class IdleWorker:
    """The worker's side of one peer."""

    def __init__(self, node: str, discovery: Path, relays: Relays | None = None) -> None:
        self.node = node
        self.view: View | None = None
        self.heard_at = 0.0
        """When the newest view's COMMIT was here."""
        self.peer_pid = 0
        self.noticed_at = 0.0
        """When a link of its peer was last lost or came back."""
        self._relays = relays
        self._discovery = discovery
        self._stack = contextlib.ExitStack()
        self._client: PeerClient | None = None
        self._news = asyncio.Event()

    async def start(self) -> None:
        env = self._relays.env_for(self.node) if self._relays else {}
        door = self._stack.enter_context(open_door("127.0.0.1", int(env.get("CHAOS_PORT", 0))))
        config = PeerConfig(
            run="idle",
            node=self.node,
            relay=env.get("CHAOS_RELAY", ""),
            discovery=str(self._discovery),
            linger_s=0.0,
            log_level="WARNING",
        )
        process = start_peer(config, door)
        self.peer_pid = process.pid
        self._client = await PeerClient.connect(
            process,
            on_message=self._hear,
            on_socket=lambda _, sock: sock.close(),
            on_gone=lambda _: None,
        )
        await self.until(lambda: self.view is not None)

    def _hear(self, message: local.AnyLocal) -> None:
        match message:
            case local.Standing(view=view) | local.Install(view=view):
                self.view, self.heard_at = view, time.perf_counter()
                self._news.set()
            case local.NoLink():
                self.noticed_at = time.perf_counter()
            case local.Freeze(ballot=ballot):
                self.say(local.Frozen(ballot, IDLE))

    def say(self, message: local.Local) -> None:
        assert self._client is not None
        self._client.send(message)

    @property
    def epoch(self) -> int:
        return self.view.epoch if self.view else 0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        self._stack.close()


class IdlePeers:
    """So many members; one more joins and leaves again and again."""

    def __init__(self, discovery: Path, relays: Relays | None = None) -> None:
        self._discovery = discovery
        self._relays = relays
        self._workers: list[IdleWorker] = []
        self._started = 0
        self.busy_s = 0.0
        """Processor time that the peers took for the last link event, all together."""

    async def __aenter__(self) -> IdlePeers:
        for _ in range(MEMBERS):
            await self._come()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            await worker.aclose()

    @property
    def oldest(self) -> IdleWorker:
        """The worker of the lead."""
        return self._workers[0]

    async def join(self) -> float:
        """Seconds from a newcomer's request until the COMMIT of its place is at all."""
        return await self._come()

    async def leave(self) -> float:
        """Seconds from the youngest's request until the COMMIT of its leave is at all."""
        goes = self._workers[-1]
        seconds = await self._change(goes, local.Leaving())
        self._workers.remove(goes)
        for worker in self._workers:
            assert worker.view is not None
            worker.say(local.Begun(worker.view.switch))  # the leaver's last round is over
        await goes.aclose()
        return seconds

    async def link(self, act: Callable[[], None]) -> float:
        """Seconds from the first peer that notices what was done to a link to the COMMIT at all."""
        before = max(worker.epoch for worker in self._workers)
        begun, busy_s = time.perf_counter(), self._processor_s()
        await asyncio.to_thread(act)  # it waits for the relays, and this loop is to hear meanwhile
        for worker in self._workers:
            await worker.until(lambda w=worker: w.epoch > before)  # type: ignore[misc]
        self.busy_s = self._processor_s() - busy_s
        noticed = min(w.noticed_at for w in self._workers if w.noticed_at > begun)
        return max(worker.heard_at for worker in self._workers) - noticed

    def _processor_s(self) -> float:
        """Of the peers' event loops so far, as exactly as the kernel knows."""
        stats = (Path(f"/proc/{worker.peer_pid}/schedstat") for worker in self._workers)
        return sum(int(stat.read_text().split()[0]) for stat in stats) / 1e9

    async def _come(self) -> float:
        self._started += 1
        worker = IdleWorker(f"n{self._started}", self._discovery, self._relays)
        await worker.start()
        self._workers.append(worker)
        if len(self._workers) == 1:
            worker.say(local.AskSeat(SETTINGS))
            return 0.0
        await asyncio.sleep(0.2)  # until it has met all members; what follows is the negotiation
        seconds = await self._change(worker, local.AskSeat(SETTINGS))
        assert worker.view is not None
        await self._change(worker, local.Pulled(worker.epoch, worker.view.switch))
        return seconds

    async def _change(self, asker: IdleWorker, wish: local.Local) -> float:
        before = max(worker.epoch for worker in self._workers)
        begun = time.perf_counter()
        asker.say(wish)
        for worker in self._workers:
            await worker.until(lambda w=worker: w.epoch > before and w.heard_at > begun)  # type: ignore[misc]
        return max(worker.heard_at for worker in self._workers) - begun
