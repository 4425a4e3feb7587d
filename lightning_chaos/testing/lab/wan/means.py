"""What the lab's namespaces need of this machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct

from lightning_chaos.errors import ConfigError
from lightning_chaos.testing.lab import native
from lightning_chaos.testing.lab.wan.enter import in_thread, leave_network

_TUN = "/dev/net/tun"
# From linux/if_tun.h.
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4 = 0x01, 0x02


def missing() -> str:
    """What keeps namespaces from working here, '' if nothing does."""
    if why := native.missing():
        return why
    if os.geteuid() != 0:
        return "namespaces need root"
    if shutil.which("ip") is None:
        return "namespaces need the command ip (package iproute2)"
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
    if why := native.missing():
        raise ConfigError(why)
    if why := missing():
        raise ConfigError(f"{why}; the lab's relays need none of it, but have no loss and queues")


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


def _try_card() -> None:
    leave_network()
    os.close(open_card("wan0"))
