"""Hosts of the lab, made and removed; also those that a killed owner left behind.

Everything of one lab bears a key that names its owner, ``chaos-<pid>-<birth>-<tag>``: the network
namespaces ``<key>-<number>`` and a directory in :data:`RUN`, which is there before them and goes
after them.  So whoever starts next finds what belongs to a process that is gone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import filelock

from lightning_chaos.errors import ConfigError, LabError
from lightning_chaos.peer.machine import process_birth, process_gone
from lightning_chaos.testing.lab.wan.enter import Host, in_network
from lightning_chaos.testing.lab.wan.means import open_card

RUN = Path("/run/lightning-chaos-lab")
CARD = "wan0"
_NETNS = Path("/run/netns")
_LOCK_WAIT_S = 30.0
_IP_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 5.0
_MTU = 1500
_CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
_AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
# Least, first and most bytes of a socket's buffer: enough for 1 Gbit/s at 200 ms there and back.
_BUFFERS = "4096 131072 67108864"
_SYSCTLS = {
    Path("/proc/sys/net/ipv4/tcp_wmem"): _BUFFERS,
    Path("/proc/sys/net/ipv4/tcp_rmem"): _BUFFERS,
    # A connection must not begin with what an earlier one learnt on a link of another shape.
    Path("/proc/sys/net/ipv4/tcp_no_metrics_save"): "1",
}


def new_key() -> str:
    """A key for a lab of this process."""
    return f"chaos-{os.getpid()}-{process_birth(os.getpid())}-{secrets.token_hex(2)}"


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """While inside, no other lab of this machine is made.

    Raises:
        ConfigError: somebody else has been inside for too long.
    """
    RUN.mkdir(mode=0o755, exist_ok=True)
    lock = filelock.FileLock(RUN / "lock")
    try:
        with lock.acquire(timeout=_LOCK_WAIT_S):
            yield
    except filelock.Timeout:
        raise ConfigError(
            f"another lab has held {lock.lock_file} for {_LOCK_WAIT_S:g} s: end that process"
        ) from None


def make_hosts(key: str, count: int, congestion: str) -> tuple[list[Host], list[int]]:
    """Hosts that share no wire yet; to be called in :func:`one_at_a_time`.

    Args:
        key: of :func:`new_key`.
        count: how many.
        congestion: how their kernels control congestion, "cubic" say.

    Returns:
        The hosts, and for each the file descriptor of its network card's wire.

    Raises:
        ConfigError: this kernel has no such congestion control.
        LabError: a host cannot be made; says what ``ip`` said.
    """
    hosts = [
        Host(f"{key}-{number}", f"10.77.0.{number + 1}", RUN / key / str(number))
        for number in range(count)
    ]
    cards: list[int] = []
    try:
        with _allowed(congestion):
            for host in hosts:
                cards.append(_make(host, congestion))
    except BaseException:
        for card in cards:
            os.close(card)
        raise
    return hosts, cards


def remove(key: str) -> None:
    """End all processes of that lab's hosts and remove what is left of it."""
    names = {path.name: path.stat().st_ino for path in _NETNS.glob(f"{key}-*")}
    networks = set(names.values())
    _end_all(lambda: _pids_in(networks))
    for name in names:
        _ip("netns", "delete", name)
    _end_all(lambda: _pids_in(networks))  # one may have come in before the name was gone
    shutil.rmtree(RUN / key, ignore_errors=True)


def remove_orphans() -> list[str]:
    """Remove the labs whose owner is gone; returns their keys."""
    orphans = [path.name for path in RUN.glob("chaos-*") if _owner_gone(path.name)]
    for key in orphans:
        remove(key)
    return orphans


def _make(host: Host, congestion: str) -> int:
    host.runtime.mkdir(mode=0o700, parents=True)
    host.boot_id.write_text(f"{uuid.uuid4()}\n")
    _ip("netns", "add", host.namespace)
    card = in_network(host, lambda: _furnish(congestion))
    _ip(
        *("-n", host.namespace, "-batch", "-"),
        orders=f"link set lo up\naddr add {host.address}/24 dev {CARD}\n"
        f"link set {CARD} mtu {_MTU} txqueuelen 2000 up\n",
    )
    return card


def _furnish(congestion: str) -> int:
    """In the host's network: settings and network card."""
    for path, value in _SYSCTLS.items():
        path.write_text(value)
    _CONGESTION.write_text(congestion)
    return open_card(CARD)


@contextlib.contextmanager
def _allowed(congestion: str) -> Iterator[None]:
    """While inside, a namespace may be given this congestion control.

    The list of those allowed is the machine's, but it is asked only when the setting is made; so
    it can be put back at once, and only a lab killed in that moment leaves it longer.
    """
    available = _AVAILABLE.read_text().split()
    if congestion not in available:
        raise ConfigError(
            f"congestion={congestion!r}: this kernel has {', '.join(available)} (more by modprobe)"
        )
    before = _ALLOWED.read_text()
    if congestion in before.split():
        yield
        return
    _ALLOWED.write_text(f"{before.strip()} {congestion}")
    try:
        yield
    finally:
        _ALLOWED.write_text(before)


def _owner_gone(key: str) -> bool:
    _, pid, birth, _ = key.split("-")
    return process_gone(int(pid)) or process_birth(int(pid)) != int(birth)


def _pids_in(networks: set[int]) -> list[int]:
    """Processes of these network namespaces, by the numbers of their files."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                if (entry / "ns/net").stat().st_ino in networks:
                    found.append(int(entry.name))
    return found


def _end_all(find: Callable[[], Iterable[int]]) -> None:
    """SIGKILL to all that it finds, until it finds none."""
    deadline = time.monotonic() + _END_TIMEOUT_S
    while (pids := list(find())) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _ip(*arguments: str, orders: str | None = None) -> None:
    result = subprocess.run(
        ["ip", *arguments], input=orders, capture_output=True, text=True, timeout=_IP_TIMEOUT_S
    )
    if result.returncode:
        raise LabError(f"ip {' '.join(arguments)}: {result.stderr.strip()}")
