"""What the lab's namespaces need of this machine, and the switch compiled for it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from lightning_chaos.errors import ConfigError
from lightning_chaos.testing.lab.wan.enter import in_thread, leave_network

_SOURCES = Path(__file__).parent
_COMPILE = ("gcc", "-std=gnu11", "-O2")
_COMPILE_TIMEOUT_S = 60.0
_TUN = "/dev/net/tun"
# From linux/if_tun.h.
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4 = 0x01, 0x02


def missing() -> str:
    """What keeps namespaces from working here, '' if nothing does."""
    if sys.platform != "linux":
        return "namespaces need Linux"
    if os.geteuid() != 0:
        return "namespaces need root"
    for tool, package in (("ip", "iproute2"), ("gcc", "gcc")):
        if shutil.which(tool) is None:
            return f"namespaces need the command {tool} (package {package})"
    try:
        in_thread(_try_card)
    except OSError as error:
        return f"this machine's root may not make namespaces with TUN devices: {error}"
    return ""


def require() -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: see :func:`missing`.
    """
    if why := missing():
        raise ConfigError(f"{why}; the lab's relays work everywhere, but without loss and queues")


def open_card(name: str) -> int:
    """A network card of this thread's namespace, whose wire is the file descriptor returned.

    It is a TUN device that hands over packets with the kernel's work left undone: one of 64 KiB
    instead of 45 of an MTU.

    Raises:
        OSError: the kernel does not allow it.
    """
    tun = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(tun, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
    except BaseException:
        os.close(tun)
        raise
    return tun


def compiled_switch() -> Path:
    """The switch for this machine; compiled once for each version of its source.

    Raises:
        ConfigError: the compiler refuses it; shows what it said.
    """
    sources = sorted(_SOURCES.glob("*.[ch]"))
    text = b"\0".join(path.read_bytes() for path in sources)
    digest = hashlib.sha256(" ".join(_COMPILE).encode() + text).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning-chaos"
    binary = cache / f"wan-switch-{digest}"
    if binary.exists():
        return binary
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        draft = Path(directory, "switch")
        files = [str(path) for path in sources if path.suffix == ".c"]
        result = subprocess.run(
            [*_COMPILE, "-o", str(draft), *files],
            capture_output=True,
            text=True,
            timeout=_COMPILE_TIMEOUT_S,
        )
        if result.returncode:
            raise ConfigError(f"gcc cannot compile the lab's switch:\n{result.stderr}")
        draft.replace(binary)
    return binary


def _try_card() -> None:
    leave_network()
    os.close(open_card("wan0"))
