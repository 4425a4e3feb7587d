"""How long the peers' control connections have been silent, as the kernel sees it."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable

_PIDFD_GETFD = 438
_LAST_DATA_RECV = 52
"""Where ``struct tcp_info`` (linux/tcp.h) says how many ms ago data came in, in order."""
_POLL_S = 0.01


def control_sockets(pid: int) -> list[socket.socket]:
    """Duplicates of all TCP connections of a peer process, which has no others; needs root."""
    found: list[socket.socket] = []
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                continue
            fd = libc.syscall(_PIDFD_GETFD, pidfd, int(name), 0)
            if fd < 0:
                raise OSError(ctypes.get_errno(), "a peer's socket cannot be looked at")
            sock = socket.socket(fileno=fd)
            if sock.family == socket.AF_INET and _connected(sock):
                found.append(sock)
            else:
                sock.close()
    finally:
        os.close(pidfd)
    return found


def longest_silences(
    pids: dict[str, int], over: Callable[[], bool]
) -> dict[tuple[str, str], float]:
    """Watch the control connections of these peers.

    Args:
        pids: of the peer processes, by node.
        over: whether that is enough; asked every hundredth of a second, and bounded itself.

    Returns:
        By (hearing node, address of the other): the longest time in which nothing came, seconds,
        at most a few hundredths too short.
    """
    socks = {node: control_sockets(pid) for node, pid in pids.items()}
    longest: dict[tuple[str, str], float] = {}
    try:
        while not over():
            for node, own in socks.items():
                now: dict[str, float] = {}
                for sock in own:  # two nodes may hold two connections, and use one of them
                    other = sock.getpeername()[0]
                    now[other] = min(now.get(other, float("inf")), _silence_s(sock))
                for other, silence in now.items():
                    longest[node, other] = max(longest.get((node, other), 0.0), silence)
            time.sleep(_POLL_S)
    finally:
        for own in socks.values():
            for sock in own:
                sock.close()
    return longest


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _silence_s(sock: socket.socket) -> float:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return float(struct.unpack_from("I", info, _LAST_DATA_RECV)[0]) / 1e3
