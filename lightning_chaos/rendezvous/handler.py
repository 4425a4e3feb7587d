"""What torchrun's agent calls: it hands the worker its way into the run, and waits for nobody.

The members' agreement is the peers'.  An agent's own world is its one worker, with a store in
its own memory, so nobody's coming or going can make it stand still or restart that worker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
)
from typing_extensions import override

from lightning_chaos import agent
from lightning_chaos.errors import AddressError, JoinError, WireError
from lightning_chaos.peer.greeting import greet
from lightning_chaos.protocol.values import Member
from lightning_chaos.rendezvous.doorstep import Doorstep, address_towards, is_here
from lightning_chaos.rendezvous.flags import Flags, read_flags
from lightning_chaos.skin.settings import check_one_worker
from lightning_chaos.transport.address import Address, is_loopback
from lightning_chaos.transport.channel import Channel
from lightning_chaos.transport.dial import dial, dial_tcp
from lightning_chaos.transport.door import Kind, open_door

NAME = "chaos"
_CALL_S = 5.0
_CALL_LEAST_S = 0.1
_CALL_AGAIN_S = 0.2
_OLD_PEER_S = 3.0
log = logging.getLogger(__name__)


class _OwnStore(HashStore):
    """The agent's own: here it says how many workers it is about to start.

    So several are refused once, in the agent, rather than by each of them at each restart.
    """

    @override
    def set(self, key: str, value: str) -> None:
        if key.startswith("torchelastic/role_info/"):
            check_one_worker(int(json.loads(value)["local_world_size"]))
        super().set(key, value)


class ChaosRendezvous(RendezvousHandler):
    """One agent's rendezvous.

    Args:
        params: torchrun's flags.

    Raises:
        ConfigError: a flag or ``CHAOS_…`` variable cannot work.
    """

    def __init__(self, params: RendezvousParameters) -> None:
        self._run_id = params.run_id
        self._flags = read_flags(
            os.environ,
            endpoint=params.endpoint,
            run_id=params.run_id,
            min_nodes=params.min_nodes,
            local_addr=params.local_addr,
            conf=params.config,
        )
        self._doorstep: Doorstep | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="lightning-chaos-agent-")
        self._members = Path(self._folder.name) / "members"

    @override
    def next_rendezvous(self) -> RendezvousInfo:
        """Prepare for the next worker; waits only for the first one's run to be there.

        Raises:
            AddressError: this node can have no address.
            JoinError: nobody answers at the endpoints, or the nodes there refuse this one.
        """
        variables = dict(self._flags.variables)
        variables[agent.PID] = str(os.getpid())
        variables[agent.MEMBERS] = str(self._members)
        # Its workers are one node, whose later incarnations take the place of the earlier ones.
        variables.setdefault(
            "CHAOS_NODE", os.environ.get("CHAOS_NODE") or f"{os.uname().nodename}-{os.getpid()}"
        )
        if self._flags.endpoints:
            variables |= self._way_in()
        os.environ.update(variables)
        with open_door("127.0.0.1", 0) as free:  # for a script that makes a process group
            port = free.getsockname()[1]
        return RendezvousInfo(_OwnStore(), 0, 1, RendezvousStoreInfo("127.0.0.1", port))

    def _way_in(self) -> dict[str, str]:
        """Where the node's door is and whom the worker asks."""
        flags = self._flags
        known = agent.others_noted(self._members)
        self._doorstep = self._keep_doorstep()
        mine = self._doorstep.address
        others = [a for a in flags.endpoints if not _same(a, mine)]
        ask = [str(address) for address in others]
        if known:  # it was in the run with them: it must not found another one
            ask = [*known, *ask]
        elif known is None and len(others) == len(flags.endpoints):
            asyncio.run(_wait_for_answer(others, flags))
        elif others or not flags.named_run:  # it is on the list, so it founds if nobody answers
            ask = [*ask, str(mine)]
        # Else it asks nobody: the machine's own directory knows nodes of a run of that name.
        return {
            "CHAOS_HOST": mine.host,
            "CHAOS_PORT": str(mine.port),
            "CHAOS_PEERS": ",".join(dict.fromkeys(ask)),
        }

    def _keep_doorstep(self) -> Doorstep:
        """The same place for every worker, unless a peer of the last one does not go."""
        if self._doorstep is not None:
            if self._doorstep.wait_free(_OLD_PEER_S):
                return self._doorstep
            log.warning("%s is still in use: taking another port", self._doorstep.address)
            self._doorstep.close()
            return Doorstep(self._doorstep.address.host, 0)
        for address in self._flags.endpoints:
            if (place := self._place_at(address)) is not None:
                return place
        host = self._flags.settings.host
        if is_loopback(host) and not all(is_loopback(a.host) for a in self._flags.endpoints):
            host = address_towards(self._flags.endpoints[0])
        return Doorstep(host, self._flags.settings.port)

    def _place_at(self, endpoint: Address) -> Doorstep | None:
        """The endpoint itself, if it is this machine's and nobody has it."""
        if self._flags.settings.port not in (0, endpoint.port) or not is_here(endpoint.host):
            return None
        try:
            return Doorstep(*endpoint)
        except AddressError:
            return None

    @override
    def num_nodes_waiting(self) -> int:
        """Always 0: more would make the agent restart its worker."""
        return 0

    @override
    def get_backend(self) -> str:
        """The name given to ``--rdzv-backend``."""
        return NAME

    @override
    def get_run_id(self) -> str:
        """``--rdzv-id``."""
        return self._run_id

    @override
    def is_closed(self) -> bool:
        """Never: a run is over when its members say so, which the worker hears."""
        return False

    @override
    def set_closed(self) -> None:
        """Nobody's agent can close a run."""

    @override
    def shutdown(self) -> bool:
        """Let go of the node's place."""
        if self._doorstep is not None:
            self._doorstep.close()
        self._folder.cleanup()
        return True


def _same(one: Address, other: Address) -> bool:
    hosts = {one.host, other.host}
    return one.port == other.port and (len(hosts) == 1 or all(map(is_loopback, hosts)))


async def _wait_for_answer(endpoints: Iterable[Address], flags: Flags) -> None:
    """Wait until a node of the run answers: the first one may still be starting.

    Raises:
        JoinError: none did in time, or what does is of another run or version, or no node.
    """
    problems: dict[Address, str] = {}
    deadline = time.monotonic() + flags.join_timeout_s
    while True:
        for address in endpoints:
            try:
                left_s = max(_CALL_LEAST_S, deadline - time.monotonic())
                return await _call(address, flags.settings.run, min(_CALL_S, left_s))
            except OSError as error:
                problems[address] = error.strerror or str(error)
            except WireError as error:
                raise JoinError(
                    f"--rdzv-endpoint={address} is no node of lightning-chaos, something else "
                    f"listens there ({error}): name a node's address, or a free one of this "
                    "machine to found the run"
                ) from None
        if time.monotonic() > deadline:
            why = "; ".join(f"{address}: {reason}" for address, reason in problems.items())
            raise JoinError(
                f"no node of run {flags.settings.run} answered within {flags.join_timeout_s:g} s "
                f"({why}), and no endpoint is a free address of this machine. Name a live node's "
                "address in --rdzv-endpoint, or a free one of this machine to found the run; "
                "--rdzv-conf join_timeout=SECONDS waits longer"
            )
        await asyncio.sleep(_CALL_AGAIN_S)


async def _call(address: Address, run: str, timeout_s: float) -> None:
    """See that a node of the run is there.

    Raises:
        JoinError: it is of another run or version.
        WireError: something else is there.
        OSError: nobody answers.
    """
    sock = await dial(dial_tcp, address, Kind.CONTROL, timeout_s)
    channel = await Channel.over(sock)
    caller = Member(f"agent-{os.getpid()}", time.time_ns(), host="", port=0)
    try:
        await greet(channel, caller, run, timeout_s)
    finally:
        channel.close()
        await channel.wait_closed()
