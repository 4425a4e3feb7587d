"""``python -m lightning_chaos.testing.lab.wan.enter NAMESPACE NAME BOOT -- COMMAND...``.

Becomes a process of a host of the lab, and then that command.  Also what else needs the kernel's
own words for namespaces, which Python has from 3.12 on only.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the lab."""

    namespace: str
    """Name of its network namespace, for ``ip netns exec`` too."""
    address: str
    """Its IPv4 address, and its name."""
    directory: Path
    """Where it has its boot id and its nodes' runtime directory."""

    @property
    def network(self) -> Path:
        """The file that stands for its network namespace."""
        return Path("/run/netns", self.namespace)

    @property
    def boot_id(self) -> Path:
        """The file with its boot id."""
        return self.directory / "boot_id"

    @property
    def runtime(self) -> Path:
        """``XDG_RUNTIME_DIR`` of its processes."""
        return self.directory / "runtime"

    @property
    def words(self) -> list[str]:
        """Arguments of :func:`enter`."""
        return [str(self.network), self.address, str(self.boot_id)]

    def command(self, command: list[str]) -> list[str]:
        """The command that starts this one on the host; the process keeps its id."""
        return [sys.executable, "-P", "-m", __spec__.name, *self.words, "--", *command]


def enter(network: str, name: str, boot_id: str) -> None:
    """Make this process, which must have one thread, one of that host's.

    It gets the host's network and name, and reads the host's boot id where others read the
    machine's: so nodes (and other programs) take it for another machine, while process ids are
    those of this one and can be signalled by anybody.

    Raises:
        OSError: the kernel does not allow it.
    """
    join_network(Path(network))
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS))
    _check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _check(libc.mount(os.fsencode(boot_id), _BOOT_ID.encode(), None, _MS_BIND, None))
    socket.sethostname(name)


def join_network(network: Path) -> None:
    """This thread's sockets will be of that network namespace.

    Raises:
        OSError: there is none, or the kernel does not allow it.
    """
    with network.open("rb") as file:
        _check(ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET))


def leave_network() -> None:
    """This thread's sockets will be of a new network namespace that ends with them.

    Raises:
        OSError: the kernel does not allow it.
    """
    _check(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET))


def in_thread(do: Callable[[], T]) -> T:
    """Call it in a thread of its own, which may go where this one is not to follow."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(do).result()


def in_network(host: Host, do: Callable[[], T]) -> T:
    """Call it in the host's network: sockets that it makes stay there."""

    def inside() -> T:
        join_network(host.network)
        return do()

    return in_thread(inside)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    _network, _name, _boot_id, _, *_command = sys.argv[1:]
    enter(_network, _name, _boot_id)
    os.execvp(_command[0], _command)
