"""The worker's side: starts the peer process, talks to it, takes connections from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from lightning_chaos.errors import WireError
from lightning_chaos.peer.config import PeerConfig, encode_config
from lightning_chaos.protocol.local import AnyLocal, Beat, Local, decode_local, encode_local
from lightning_chaos.transport.channel import Channel
from lightning_chaos.transport.door import Kind

_POLL_S = 0.01
_PARTING_S = 5.0
"""So long a peer that has closed its channel may take to tell others what is left, and to end."""
_TERMINATE_S = 2.0
_KILL_S = 5.0
_FDS_AT_ONCE = 8
_logger = logging.getLogger(__name__)
SILENCE_S = 10.0
"""So long a peer that has started may say nothing, seconds; it beats at least every second."""
START_S = 60.0
"""So long one may take to say its first word, seconds: an interpreter starts, on a busy machine."""
_lingering: list[subprocess.Popen[bytes]] = []
"""Released peers that this process must reap once they have ended."""


@dataclass(frozen=True, slots=True)
class PeerProcess:
    """A started peer process and this side's ends of its two socket pairs.

    Whoever has one must hand it to :meth:`PeerClient.connect` or call :meth:`abandon`.
    """

    process: subprocess.Popen[bytes]
    control: socket.socket
    handover: socket.socket

    @property
    def pid(self) -> int:
        """Process id of the peer."""
        return self.process.pid

    def abandon(self) -> None:
        """Kill it without a word and reap it."""
        self.control.close()
        self.handover.close()
        self.process.kill()
        self.process.wait(_KILL_S)


def start_peer(config: PeerConfig, door: socket.socket) -> PeerProcess:
    """Start a peer on this node's door, in a session of its own (Ctrl-C does not reach it).

    Args:
        config: what the peer must know.
        door: listening socket; the peer inherits it and the caller keeps it, so that after the
            peer's death another one can be started on the same door.

    Raises:
        OSError: the process cannot be started.
    """
    _lingering[:] = [process for process in _lingering if process.poll() is None]
    data = encode_config(config)
    control, peer_control = socket.socketpair()
    handover, peer_handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with peer_control, peer_handover:
        try:
            fds = tuple(s.fileno() for s in (door, peer_control, peer_handover))
            process = subprocess.Popen(
                # -P: a file of the user's working directory must not shadow a module.
                [sys.executable, "-P", "-m", "lightning_chaos.peer", *map(str, fds)],
                pass_fds=fds,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        except BaseException:
            control.close()
            handover.close()
            raise
    # A peer that ended already is noticed by whoever connects.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        control.sendall(len(data).to_bytes(4, "big") + data)
    return PeerProcess(process, control, handover)


class PeerClient:
    """The worker's connection to its peer, on the worker's event loop."""

    def __init__(
        self,
        process: PeerProcess,
        channel: Channel,
        on_message: Callable[[AnyLocal], None],
        on_socket: Callable[[Kind, socket.socket], None],
        on_gone: Callable[[str], None],
        silence_s: float,
        start_s: float,
    ) -> None:
        self._process = process
        self._channel = channel
        self._on_message = on_message
        self._on_socket = on_socket
        self._on_gone = on_gone
        self._closed = False
        loop = asyncio.get_running_loop()
        loop.add_reader(process.handover, self._take_sockets)
        self._heard_at = loop.time() + max(0.0, start_s - silence_s)
        """When it said something last; at first as late as may be."""
        self._silent = ""
        self._listener = loop.create_task(self._listen())
        self._watcher = loop.create_task(self._watch(silence_s))

    @classmethod
    async def connect(
        cls,
        process: PeerProcess,
        *,
        on_message: Callable[[AnyLocal], None],
        on_socket: Callable[[Kind, socket.socket], None],
        on_gone: Callable[[str], None],
        silence_s: float = SILENCE_S,
        start_s: float = START_S,
    ) -> PeerClient:
        """Take over a started peer; all callbacks run on the running loop.

        Args:
            process: from :func:`start_peer`; owned by the client from now on.
            on_message: takes what the peer says.
            on_socket: takes accepted data connections, non-blocking, their preamble read; owns
                them.
            on_gone: called once, with the reason, when the peer process has ended and is
                reaped; not called after :meth:`aclose` has begun.
            silence_s: a peer that has said nothing for so long hangs, and is killed, seconds.
            start_s: one that has said nothing at all yet, seconds; no less than ``silence_s``.
        """
        process.control.setblocking(False)
        process.handover.setblocking(False)
        channel = await Channel.over(process.control)
        return cls(process, channel, on_message, on_socket, on_gone, silence_s, start_s)

    @property
    def pid(self) -> int:
        """Process id of the peer."""
        return self._process.pid

    def send(self, message: Local) -> None:
        """Say something to the peer; swallowed if it is gone (``on_gone`` tells)."""
        self._channel.send(encode_local(message))

    async def aclose(self, grace_s: float = 2.0) -> None:
        """End the peer: ask, after ``grace_s`` seconds terminate, at last kill; reap it.

        See :meth:`release` for the peer of a finished run.
        """
        self._closed = True
        self._watcher.cancel()
        self._channel.close()
        await self._end_process(grace_s)
        await self._listener
        self._let_go()

    async def release(self) -> None:
        """Leave the peer of a finished run to itself: it tells latecomers, then ends.

        It ends by itself, at the latest a few seconds after its ``linger_s``, also when this
        process ends first.
        """
        self._closed = True
        self._channel.close()
        # One that is stopped reads nothing any more.
        bound = asyncio.get_running_loop().call_later(_TERMINATE_S, self._channel.abort)
        await self._channel.wait_closed()
        bound.cancel()
        self._listener.cancel()
        self._watcher.cancel()
        await asyncio.gather(self._listener, self._watcher, return_exceptions=True)
        self._let_go()
        _lingering.append(self._process.process)

    def _let_go(self) -> None:
        if self._process.handover.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._process.handover)
            self._process.handover.close()
        self._channel.abort()

    async def _watch(self, silence_s: float) -> None:
        """End a peer that is stopped or hangs: without it this worker would wait for ever."""
        loop, doubt = asyncio.get_running_loop(), False
        while True:
            await asyncio.sleep(silence_s / 4)
            silent = loop.time() - self._heard_at > silence_s
            # Once more after a while: this process may have been stopped together with it.
            if silent and doubt:
                self._silent = f"; it had said nothing for {silence_s:g} s"
                self._process.process.kill()
                return
            doubt = silent

    async def _listen(self) -> None:
        reason = ""
        try:
            await self._channel.listen(self._take)
        except WireError as error:
            reason = f"; what it said is not understood: {error}"
        except Exception as error:
            _logger.exception("the worker failed on a message of its peer")
            reason = f"; the worker failed on what it said: {error!r}"
        if self._closed:
            return
        await self._end_process(grace_s=0.0 if reason else _PARTING_S)
        if not self._closed:
            self._closed = True
            self._watcher.cancel()
            self._let_go()
            self._on_gone(f"{self._obituary()}{self._silent}{reason}")

    def _take(self, data: bytes) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        message = decode_local(data)
        if not isinstance(message, Beat):
            self._on_message(message)

    async def _end_process(self, grace_s: float) -> None:
        """Wait for the process, then be less and less patient; it is reaped afterwards."""
        process = self._process.process
        for patience_s, next_step in (
            (grace_s, process.terminate),
            (_TERMINATE_S, process.kill),
            (_KILL_S, process.kill),
        ):
            deadline = asyncio.get_running_loop().time() + patience_s
            while asyncio.get_running_loop().time() < deadline:
                if process.poll() is not None:
                    return
                await asyncio.sleep(_POLL_S)
            if process.poll() is not None:
                return
            next_step()

    def _obituary(self) -> str:
        code = self._process.process.poll()
        if code is None:
            how = "does not end"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        return f"peer process {self.pid} {how}"

    def _take_sockets(self) -> None:
        """Receive all data connections that the peer has handed over."""
        handover = self._process.handover
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(handover, 1, _FDS_AT_ONCE)
            except BlockingIOError:
                return
            except OSError as error:
                _logger.warning("the peer hands no connections over any more: %s", error)
                data, fds = b"", []
            if not data:
                asyncio.get_running_loop().remove_reader(handover)
                return
            if len(fds) != 1:
                for fd in fds:
                    os.close(fd)
                _logger.warning("a connection was lost on its way from the peer")
                continue
            sock = socket.socket(fileno=fds[0])
            sock.setblocking(False)
            self._on_socket(Kind(data[0]), sock)
