"""What a worker tells its peer before anything else."""

from __future__ import annotations

import ipaddress

import msgspec

from lightning_chaos.errors import AddressError, WireError
from lightning_chaos.protocol.values import Past
from lightning_chaos.transport.address import check_allowed

WORKER_PATIENCE_S = 300.0
"""How long a worker may take for what is no round, where nothing is set, seconds."""


class PeerConfig(msgspec.Struct, frozen=True):
    """Settings of one peer process; the first message on the worker's channel."""

    run: str
    """Id of the run; peers of other runs are refused."""
    node: str
    """Name of the node, the same for all its incarnations."""
    host: str = "127.0.0.1"
    """Address the door is bound to and that others dial."""
    peers: tuple[str, ...] = ()
    """Addresses ``host:port`` where the run is looked for; empty: the discovery directory."""
    known: tuple[str, ...] = ()
    """Addresses ``host:port`` where others of the run were last: asked first, need not answer."""
    min_members: int = 1
    """Members needed before the first round may start."""
    may_found: bool = True
    """Found the run if there is none; else wait for it, up to :attr:`start_timeout_s`."""
    alone: bool = False
    """A side without a quorum goes on alone, as an island (``quorum="any"``)."""
    past: Past = Past()
    """What this node brings of the run's past."""
    gather: bool = False
    """Meet ``min_members`` candidates in the discovery directory before one founds the run."""
    generation: int = 0
    """Of the run, should this node found it."""
    base_epoch: int = 0
    """Last epoch this node knew: should it found the run anew, its view is above that."""
    timeout_s: float | None = None
    """Longest silence of another peer tolerated, seconds; None to derive it from round trips."""
    worker_timeout_s: float | None = None
    """Longest time a worker may work on one round, seconds; None to derive it from its past."""
    start_timeout_s: float = 600.0
    """How long a node waits for enough others to begin with, seconds."""
    quorum_timeout_s: float = 3600.0
    """How long this node waits for a quorum once that is lost, seconds."""
    linger_s: float = 30.0
    """How long a finished run is told to latecomers, seconds."""
    insecure: bool = False
    """Talk in the clear to addresses that are not loopback."""
    relay: str = ""
    """Relay that is dialled instead of other nodes, ``host:port``; '' for none."""
    discovery: str = ""
    """Directory for discovery on this machine, '' for the user's runtime directory."""
    log_level: str = "INFO"
    """Name of a level of :mod:`logging`."""

    @property
    def patience_s(self) -> float:
        """How long a worker may take to freeze, or a pull to get on, seconds."""
        return WORKER_PATIENCE_S if self.worker_timeout_s is None else self.worker_timeout_s

    def check_host(self) -> None:
        """Refuse a host that may not be used or that nobody could dial.

        Raises:
            AddressError: not loopback without ``insecure``, or a wildcard address.
        """
        check_allowed(self.host, insecure=self.insecure, encrypted=False)
        try:
            wildcard = ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return
        if wildcard:
            raise AddressError(
                f"{self.host} is no address that others can dial: give this node the address "
                "that the other nodes reach it by (host=, CHAOS_HOST)"
            )


_decoder = msgspec.msgpack.Decoder(PeerConfig)


def encode_config(config: PeerConfig) -> bytes:
    """Bytes of the settings, without framing."""
    return msgspec.msgpack.encode(config)


def decode_config(data: bytes) -> PeerConfig:
    """The settings in these bytes.

    Raises:
        WireError: they are not a :class:`PeerConfig`.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"not the settings of a peer: {error}") from error
