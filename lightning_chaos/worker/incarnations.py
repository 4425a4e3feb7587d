"""A node's incarnations, one after the other, and the thread and the door that they share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import msgspec

from lightning_chaos.errors import PeerGone
from lightning_chaos.monitor.runlog import RunLog
from lightning_chaos.peer.config import PeerConfig
from lightning_chaos.protocol import local
from lightning_chaos.protocol.values import Past
from lightning_chaos.worker.outfit import Wiring
from lightning_chaos.worker.restarts import Restarts
from lightning_chaos.worker.station import Station

T = TypeVar("T")


class Incarnations:
    """Called by the training thread; stations live on the I/O thread.

    Args:
        config: for the peer process of the first.
        door: the node's listening socket; closed with this object.
        wiring: how links are made.
        run_log: of the node; closed with this object.
        on_stop: told, on the I/O thread, why somebody asks the whole run to end.
    """

    def __init__(
        self,
        config: PeerConfig,
        door: socket.socket,
        wiring: Wiring,
        run_log: RunLog,
        on_stop: Callable[[str], None],
    ) -> None:
        self._config = config
        self._wiring = wiring
        self._run_log = run_log
        self._on_stop = on_stop
        self._door = door
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-io")
        self._thread.start()
        self._leaving = False
        self.station = self._new_station()
        """The present one."""

    def _new_station(self) -> Station:
        return Station(self._config, self._door, self._wiring, self._run_log, self._on_stop)

    # ---- the I/O thread --------------------------------------------------------------------

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the loop and wait; an interrupt of the training thread cancels it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def tell(self, work: Callable[[Station], None]) -> None:
        """Do this with the station, on the loop; returns at once."""
        self._loop.call_soon_threadsafe(_attempt, self.station, work)

    # ---- life ------------------------------------------------------------------------------

    def open(self) -> local.Standing:
        """See :meth:`Node.open`."""
        standing = self.call(self.station.open())
        self._run_log.write(
            "start",
            uid=standing.me.uid,
            pid=os.getpid(),
            peer_pid=self.station.peer_pid,
            address=standing.me.address,
            run=self._config.run,
        )
        return standing

    def open_again(self, past: Past, restarts: Restarts) -> local.Standing:
        """See :meth:`Node.open_again`."""
        before = self.station
        self.call(before.aclose(before.apart or "it stands by"))
        last = before.course.view
        others = (m.address for m in last.members if m.uid != before.outfit.me.uid)
        self._config = msgspec.structs.replace(
            self._config,
            base_epoch=last.epoch,
            generation=last.generation,
            past=past,
            known=before.where or tuple(others),
            gather=self._config.gather and not before.course.seated,
        )
        standing = self._open_next(restarts)
        if not standing.newcomer:
            self.tell(lambda station: _go_on(station, before))
        return standing

    def _open_next(self, restarts: Restarts) -> local.Standing:
        while True:
            self.station = self._new_station()
            if self._leaving:  # told to the last incarnation only
                self.tell(Station.leave)
            try:
                return self.open()
            except PeerGone as gone:
                restarts.use(str(gone))
                self.call(self.station.aclose(str(gone)))

    def leave(self) -> None:
        """Ask to be planned out, with this incarnation or the next; safe in a signal handler."""
        self._leaving = True
        self.tell(Station.leave)

    def close(self, reason: str) -> None:
        """Say goodbye and give back every thread, process and socket; may be called twice."""
        if not self._thread.is_alive():
            return
        with contextlib.ExitStack() as last:
            last.callback(self._end_loop)
            last.callback(self._run_log.close)
            last.callback(self._run_log.write, "end", reason=reason)
            self.call(self.station.aclose(reason))

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._door.close()


def _attempt(station: Station, work: Callable[[Station], None]) -> None:
    """The event loop would only write an error down, and training wait for ever."""
    try:
        work(station)
    except Exception as error:
        station.on_failure(error)


def _go_on(station: Station, before: Station) -> None:
    """Alone, and founded the run anew: the last incarnation's rounds stand, as this one's."""
    before.chronicle.all_stable()
    station.course.begun, station.samples = before.course.begun, before.samples
    station.tell_peer(local.Begun(station.course.begun, station.samples))
