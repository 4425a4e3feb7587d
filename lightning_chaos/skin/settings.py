"""Arguments of the strategy and the environment variables that stand in for them.

An argument that is given always wins; the environment fills in what is left out.
"""

from __future__ import annotations

import difflib
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from lightning_chaos import agent
from lightning_chaos.data.paces import SlowMode
from lightning_chaos.errors import ConfigError, legible
from lightning_chaos.peer.discovery import default_run
from lightning_chaos.transport.address import Address, check_allowed, parse_address
from lightning_chaos.transport.relayed import dialler_for

BufferMode = Literal["mean", "first", "local"]
QuorumMode = Literal["majority", "any"]
MOST_MEMBERS = 10_000
"""More cannot be waited for: plans, headers and shares of samples have a part for each."""
_ALIKE = 0.8
"""Names closer than that (:mod:`difflib`) are taken for misspelt."""
VERIFY_EVERY = 10
"""Costs a member about 0.4 ms a round: a segment's digest and what finds it (docs/state.md)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How one node takes part in a run; see README for the table."""

    run: str
    node: str
    host: str
    port: int
    peers: tuple[Address, ...]
    min_members: int
    timeout_s: float | None
    """None: derived from measured round trips."""
    worker_timeout_s: float | None
    """None: derived from the worker's own past."""
    start_timeout_s: float
    quorum_timeout_s: float
    linger_s: float
    link_rate_bytes_per_s: float | None
    insecure: bool
    log_dir: str
    join_at_round: int
    savers: int
    buffers: BufferMode
    quorum: QuorumMode
    """What a side of a cut network does that is not the larger one: wait, or go on alone."""
    slow: SlowMode
    """What becomes of a member that takes three times as long as usual."""
    verify_every: int
    """Rounds between two checks of a segment of the state; 0 for no checks."""
    relay: str
    """The lab's relay, dialled instead of the other nodes; '' for none."""
    replay: str
    """Run log to recompute instead of training with others; ``lightning-chaos replay`` sets it."""


def resolve(
    environ: Mapping[str, str] = os.environ,
    *,
    peers: str | Sequence[str] | None = None,
    run: str | None = None,
    node: str | None = None,
    host: str | None = None,
    port: int | None = None,
    min_members: int | None = None,
    timeout: float | None = None,
    worker_timeout: float | None = None,
    start_timeout: float | None = None,
    quorum_timeout: float | None = None,
    linger: float | None = None,
    link_rate: float | None = None,
    insecure: bool | None = None,
    log_dir: str | os.PathLike[str] | None = None,
    join_at_round: int | None = None,
    savers: int | None = None,
    buffers: str = "mean",
    quorum: str | None = None,
    slow: str | None = None,
    verify_every: int | None = None,
) -> Settings:
    """Settings from arguments and environment.

    Raises:
        ConfigError: a value cannot work; names the argument and the variable.
    """
    env = _Environment(environ)
    if env.text(agent.PID):
        check_one_worker(int(env.number("", "LOCAL_WORLD_SIZE", None, 1, least=1)))
    if buffers not in get_args(BufferMode):
        raise ConfigError(f"buffers={buffers!r}: choose one of {', '.join(get_args(BufferMode))}")
    quorum = env.choice("quorum", "CHAOS_QUORUM", quorum, get_args(QuorumMode))
    slow = env.choice("slow", "CHAOS_SLOW", slow, get_args(SlowMode))
    insecure = env.flag("CHAOS_INSECURE", insecure)
    rate = env.number("link_rate", "CHAOS_LINK_RATE", link_rate, 0.0, least=0.0)
    named = env.names("CHAOS_PEERS", peers)
    settings = Settings(
        run=env.text("CHAOS_RUN", run) or default_run(sys.argv[0]),
        node=env.text("CHAOS_NODE", node) or f"{os.uname().nodename}-{os.getpid()}",
        host=env.text("CHAOS_HOST", host) or "127.0.0.1",
        port=int(env.number("port", "CHAOS_PORT", port, 0, least=0, most=65535)),
        peers=tuple(parse_address(text) for text in named if text.strip()),
        min_members=int(
            env.number("min_members", "CHAOS_MIN_MEMBERS", min_members, 1, 1, MOST_MEMBERS)
        ),
        timeout_s=env.number("timeout", "CHAOS_TIMEOUT", timeout, 0.0, least=0.05) or None,
        worker_timeout_s=env.number(
            "worker_timeout", "CHAOS_WORKER_TIMEOUT", worker_timeout, 0.0, least=0.05
        )
        or None,
        start_timeout_s=env.number(
            "start_timeout", "CHAOS_START_TIMEOUT", start_timeout, 600.0, least=0.05
        ),
        quorum_timeout_s=env.number(
            "quorum_timeout", "CHAOS_QUORUM_TIMEOUT", quorum_timeout, 3600.0, least=0.05
        ),
        linger_s=env.number("linger", "CHAOS_LINGER", linger, 30.0, least=0.0),
        link_rate_bytes_per_s=rate * 1e6 / 8 or None,
        insecure=insecure,
        log_dir=env.text("CHAOS_LOG", None if log_dir is None else os.fspath(log_dir)),
        join_at_round=int(
            env.number("join_at_round", "CHAOS_JOIN_AT", join_at_round, -1, least=-1, most=1e15)
        ),
        savers=int(env.number("savers", "CHAOS_SAVERS", savers, 1, least=1)),
        buffers=cast(BufferMode, buffers),
        quorum=cast(QuorumMode, quorum),
        slow=cast(SlowMode, slow),
        verify_every=int(
            env.number("verify_every", "CHAOS_VERIFY_EVERY", verify_every, VERIFY_EVERY, least=0)
        ),
        relay=env.text("CHAOS_RELAY"),
        replay=env.text("CHAOS_REPLAY"),
    )
    env.check_spelling()
    if "/" in settings.node:
        raise ConfigError(f"node {settings.node!r} (node=, CHAOS_NODE) must not contain a slash")
    for said, name in (("run=, CHAOS_RUN", settings.run), ("node=, CHAOS_NODE", settings.node)):
        if legible(name) != name or any(c < " " for c in name):
            raise ConfigError(f"{name!r} ({said}) cannot be a name: use characters that show")
    dialler_for(settings.relay, settings.node)  # refuses one that is not on this machine
    for name in (settings.host, *(a.host for a in settings.peers)):
        check_allowed(name, insecure=settings.insecure, encrypted=False)
    return settings


def check_one_worker(workers: int) -> None:
    """Refuse several workers under one torchrun agent.

    Raises:
        ConfigError: there is to be more than one.
    """
    if workers > 1:
        raise ConfigError(
            f"--nproc-per-node={workers}: a node has one worker; start torchrun once for each "
            "device (with CUDA_VISIBLE_DEVICES, say), each with --nproc-per-node=1"
        )


class _Environment:
    """Reads variables and says which one is wrong; an argument that is given wins."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._known = {agent.PID, agent.MEMBERS}

    def text(self, name: str, given: str | None = None) -> str:
        """Without the blanks around it, '' for none."""
        self._known.add(name)
        return self._environ.get(name, "").strip() if given is None else given

    def names(self, name: str, given: str | Sequence[str] | None) -> Sequence[str]:
        """Separated by commas, or a sequence already."""
        text = self.text(name)
        listed = text if given is None else given
        return listed.split(",") if isinstance(listed, str) else listed

    def flag(self, name: str, given: bool | None) -> bool:
        text = (self.text(name) or "0").lower()
        if given is not None:
            return given
        if text not in ("0", "1", "true", "false"):
            raise ConfigError(f"{name}={text!r}: write 1 or 0")
        return text in ("1", "true")

    def check_spelling(self) -> None:
        """Refuse a name that is nearly one of those read: what it says would count for nothing."""
        for name in self._environ.keys() - self._known:
            alike = difflib.get_close_matches(name, self._known, 1, _ALIKE)
            if name.startswith("CHAOS_") and alike:
                raise ConfigError(f"{name} means nothing: write {alike[0]}, or choose another name")

    def choice(self, argument: str, name: str, given: str | None, choices: Sequence[str]) -> str:
        """One of these, the first by default."""
        value = self.text(name, given) or choices[0]
        if value not in choices:
            said = ", ".join(choices)
            raise ConfigError(f"{argument}={value!r} ({argument}=, {name}): choose one of {said}")
        return value

    def number(
        self,
        argument: str,
        name: str,
        given: float | None,
        default: float,
        least: float = float("-inf"),
        most: float = float("inf"),
    ) -> float:
        source, value, text = f"{argument}={given!r}", given, self.text(name)
        if value is None and text:
            source = f"{name}={text!r}"
            try:
                value = float(text)
            except ValueError:
                raise ConfigError(f"{source} is not a number") from None
        if value is None:
            return default
        if not math.isfinite(value):
            raise ConfigError(f"{source} must be finite")
        if isinstance(default, int) and value != int(value):
            raise ConfigError(f"{source} must be a whole number")
        if not least <= value <= most:
            bounds = f"at least {least:g}" if most == float("inf") else f"{least:g} to {most:g}"
            raise ConfigError(f"{source} is out of range: {bounds} is allowed")
        return value
