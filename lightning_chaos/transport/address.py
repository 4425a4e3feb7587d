"""Addresses of nodes, and which of them may be used before mutual TLS is there."""

from __future__ import annotations

import functools
import ipaddress
from typing import NamedTuple

from lightning_chaos.errors import AddressError


class Address(NamedTuple):
    """Where a node's one inbound door is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """``host:port`` or ``[ipv6]:port`` as an :class:`Address`.

    Raises:
        AddressError: the text is not of that form or the port is not in 1..65535.
    """
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise AddressError(f"{text!r}: write an IPv6 address in brackets, as [::1]:4711")
    if not colon or not host or any(c.isspace() or c == "/" for c in host):
        raise AddressError(f"{text!r} is not an address: write host:port, as 10.0.0.7:4711")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise AddressError(f"{text!r}: the port must be a number from 1 to 65535")
    return Address(host, int(port))


@functools.lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """True if the host is this machine for sure (a loopback address or ``localhost``)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_allowed(host: str, *, insecure: bool, encrypted: bool) -> None:
    """Refuse to talk in the clear, unauthenticated, to anything but this machine.

    Raises:
        AddressError: the host is not loopback and neither flag is set.
    """
    if insecure or encrypted or is_loopback(host):
        return
    raise AddressError(
        f"{host} is not a loopback address: nodes do not yet prove who they are or encrypt what "
        "they send, so anyone on the way could read or change the training state. "
        "On a network you trust wholly, pass insecure=True or set CHAOS_INSECURE=1"
    )
