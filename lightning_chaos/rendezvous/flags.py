"""torchrun's flags as the strategy's settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_chaos.errors import AddressError, ConfigError
from lightning_chaos.skin.settings import Settings, resolve
from lightning_chaos.transport.address import Address, check_allowed, parse_address

NO_ID = "none"
"""What torchrun takes for ``--rdzv-id`` when none is given."""
TORCHRUNS_OWN = ("timeout", 900)
"""What torchrun puts into the options when they have no timeout; a user's would be a text."""
JOIN_TIMEOUT_S = 60.0
_VARIABLES = {
    "host": "CHAOS_HOST",
    "insecure": "CHAOS_INSECURE",
    "join_at_round": "CHAOS_JOIN_AT",
    "linger": "CHAOS_LINGER",
    "link_rate": "CHAOS_LINK_RATE",
    "log_dir": "CHAOS_LOG",
    "node": "CHAOS_NODE",
    "port": "CHAOS_PORT",
    "quorum_timeout": "CHAOS_QUORUM_TIMEOUT",
    "start_timeout": "CHAOS_START_TIMEOUT",
    "timeout": "CHAOS_TIMEOUT",
    "worker_timeout": "CHAOS_WORKER_TIMEOUT",
}
"""Options of ``--rdzv-conf`` and the variables they stand for."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What torchrun was told, checked."""

    endpoints: tuple[Address, ...]
    """Where the run is looked for; the first free one of this machine may be this node's own."""
    variables: dict[str, str]
    """What the worker's environment must say beyond where the run is."""
    settings: Settings
    """What the strategy will make of it."""
    named_run: bool
    """The run has a name of its own, so that who has the same name means the same run."""
    join_timeout_s: float
    """How long nobody may answer at the endpoints, seconds."""


def read_flags(
    environ: Mapping[str, str],
    *,
    endpoint: str,
    run_id: str,
    min_nodes: int,
    local_addr: str | None,
    conf: Mapping[str, Any],
) -> Flags:
    """Flags of torchrun over the ``CHAOS_…`` variables of its environment.

    Args:
        environ: the agent's.
        endpoint: ``--rdzv-endpoint``: ``host:port``, or several with commas between.
        run_id: ``--rdzv-id``.
        min_nodes: MIN of ``--nnodes``.
        local_addr: ``--local-addr``.
        conf: options of ``--rdzv-conf``.

    Raises:
        ConfigError: a flag or variable cannot work; says which.
    """
    given = {key: str(value) for key, value in conf.items() if (key, value) != TORCHRUNS_OWN}
    join_timeout_s = _seconds("join_timeout", given.pop("join_timeout", str(JOIN_TIMEOUT_S)))
    if unknown := sorted(given.keys() - _VARIABLES.keys()):
        raise ConfigError(
            f"--rdzv-conf: no such option {', '.join(unknown)}; there are "
            f"{', '.join(sorted([*_VARIABLES, 'join_timeout']))}"
        )
    endpoints = tuple(_endpoint(text) for text in endpoint.split(",") if text.strip())
    named = run_id != NO_ID or bool(environ.get("CHAOS_RUN", "").strip())
    variables = {_VARIABLES[key]: value for key, value in given.items()}
    variables["CHAOS_MIN_MEMBERS"] = str(min_nodes)
    if run_id != NO_ID or (endpoints and not named):
        variables["CHAOS_RUN"] = run_id
    if local_addr:
        variables["CHAOS_HOST"] = local_addr
    settings = resolve({**environ, **variables})
    for address in endpoints:
        check_allowed(address.host, insecure=settings.insecure, encrypted=False)
    return Flags(endpoints, variables, settings, named, join_timeout_s)


def _endpoint(text: str) -> Address:
    address = parse_address(text)
    try:
        address.host.encode("idna")  # as every look-up does
    except UnicodeError:
        raise AddressError(f"--rdzv-endpoint={text}: no machine can have that name") from None
    return address


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigError(f"--rdzv-conf {name}={text}: write a number of seconds")
    return value
