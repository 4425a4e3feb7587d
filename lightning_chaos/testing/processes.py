"""The real processes of one node, and signals to them."""

from __future__ import annotations

import contextlib
import os
import signal

import psutil

from lightning_chaos.testing.launch import Running


class Processes:
    """One worker, and the peers that it has had.

    A peer is a child of its worker, and outlives it for a while; so it is remembered once seen.

    Args:
        worker: just started.
    """

    def __init__(self, worker: Running) -> None:
        self._worker = worker
        self._peers: list[psutil.Process] = []

    @property
    def exit_code(self) -> int | None:
        """Of the worker (negative: a signal), None while it runs."""
        return self._worker.poll()

    @property
    def any_peer(self) -> bool:
        """A peer that was seen still runs."""
        return any(_runs(p) for p in self._peers)

    def know_peer(self, pid: int) -> None:
        """That process is a peer of this node."""
        if all(p.pid != pid for p in self._peers):
            with contextlib.suppress(psutil.NoSuchProcess):
                self._peers.append(psutil.Process(pid))

    def look(self) -> None:
        """Remember the peer that runs now."""
        if self._worker.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self._worker.pid).children(recursive=True):
                    self.know_peer(child.pid)

    def signal_worker(self, sign: signal.Signals) -> None:
        """To the worker, if it runs."""
        if self._worker.poll() is None:
            os.kill(self._worker.pid, sign)

    def signal_peers(self, sign: signal.Signals) -> None:
        """To each peer that runs."""
        for peer in self._running_peers():
            _signal(peer, sign)

    def kill(self) -> None:
        """End all at once: none gets to say a last word."""
        peers = self._running_peers()
        self.signal_worker(signal.SIGSTOP)
        for sign in (signal.SIGSTOP, signal.SIGKILL):
            for peer in peers:
                _signal(peer, sign)
        self.signal_worker(signal.SIGKILL)

    def _running_peers(self) -> list[psutil.Process]:
        self.look()
        return [p for p in self._peers if _runs(p)]


def _runs(process: psutil.Process) -> bool:
    """True while that very process (not a later one with its pid) does something."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, sign: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(sign)
