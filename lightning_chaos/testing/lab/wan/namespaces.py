"""The lab's namespaces: hosts in one machine, with a WAN between them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from lightning_chaos.errors import ConfigError
from lightning_chaos.testing.lab.conditions import MAX_RATE_MBIT, Cut, Shape
from lightning_chaos.testing.lab.network import Network
from lightning_chaos.testing.lab.rules import EVERY, Pair, Rules
from lightning_chaos.testing.lab.wan import hosts as making
from lightning_chaos.testing.lab.wan.enter import Host, in_network
from lightning_chaos.testing.lab.wan.means import require
from lightning_chaos.testing.lab.wan.switch import (
    Card,
    Count,
    Switch,
    card_order,
    cut_order,
    link_order,
)
from lightning_chaos.testing.launch import ColdStart, Launcher, Running

MAX_HOSTS = 64
PORT = 4711
"""The door of every node; each has a host of its own."""


class Namespaces(Network):
    """So many hosts, each a network namespace, joined by a switch that is the WAN between them.

    A node is named once, by whatever method, and has the next free host from then on.  Rates are
    those on the wire: TCP gets 95.65 % of them as payload.  What a killed owner left behind is
    removed first.  Use it as a context manager, around the nodes: at its end all processes of
    its hosts are killed and nothing is left.

    Args:
        hosts: how many, 2 to 64.
        congestion: how the hosts' kernels control TCP's congestion: "cubic", "bbr", "reno".
        seed: of jitter and loss.

    Raises:
        ConfigError: this machine or this user cannot have namespaces; says what is missing.
    """

    def __init__(self, hosts: int, *, congestion: str = "cubic", seed: int = 0) -> None:
        if not 2 <= hosts <= MAX_HOSTS:
            raise ConfigError(f"hosts={hosts}: a lab has 2 to {MAX_HOSTS} hosts")
        require()
        self._key = making.new_key()
        self._shapes = Rules(Shape())
        self._cuts = Rules(Cut.NONE)
        self._cards = Rules(Card())
        self._placed: dict[str, int] = {}
        self._told: set[str] = set()
        with making.one_at_a_time():
            making.remove_orphans()
            try:
                self.hosts, wires = making.make_hosts(self._key, hosts, congestion)
                self._switch = Switch(wires, seed)
            except BaseException:
                making.remove(self._key)
                raise

    # ---- nodes -----------------------------------------------------------------------------

    def host_of(self, node: str) -> Host:
        """The node's host.

        Raises:
            ConfigError: every host has a node.
        """
        return self.hosts[self._number_of(node)]

    def address_of(self, node: str) -> str:
        """IPv4 address of the node's host."""
        return self.host_of(node).address

    @override
    def env_for(self, node: str) -> dict[str, str]:
        """See :class:`Network`; for a process that :meth:`popen` or :meth:`launcher` starts."""
        host = self.host_of(node)
        return {
            "CHAOS_NODE": node,
            "CHAOS_HOST": host.address,
            "CHAOS_PORT": str(PORT),
            "CHAOS_PEERS": ",".join(f"{other.address}:{PORT}" for other in self.hosts),
            "CHAOS_INSECURE": "1",  # nobody outside can reach these addresses
            "XDG_RUNTIME_DIR": str(host.runtime),
        }

    def popen(
        self,
        node: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        **more: Any,
    ) -> subprocess.Popen[Any]:
        """Start a command on the node's host.

        Args:
            node: whose host; see :meth:`env_for`.
            command: program and arguments.
            env: its environment, over which comes :meth:`env_for`; None for this process's.
            more: as for :class:`subprocess.Popen`.
        """
        variables = {**(os.environ if env is None else env), **self.env_for(node)}
        return subprocess.Popen(self.host_of(node).command([*command]), env=variables, **more)

    def launcher(self, inner: Launcher | None = None) -> Launcher:
        """For a :class:`LocalCluster`: starts each node (``CHAOS_NODE``) on its own host.

        Args:
            inner: how processes start, None for a new interpreter each.
        """
        return _OnHosts(self, inner or ColdStart())

    def socket(self, node: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """An IPv4 socket of this process in the network of the node's host."""
        return in_network(self.host_of(node), lambda: socket.socket(socket.AF_INET, kind))

    # ---- links -----------------------------------------------------------------------------

    @override
    def check(self, what: Shape | Cut) -> None:
        """See :class:`Network`; a switch that drops packets cannot reset or refuse."""
        if what in (Cut.RESET, Cut.REFUSE):
            raise ConfigError(
                f"how={str(what)!r}: a link between namespaces can be cut silently only, as cables "
                "are; relays can reset and refuse"
            )

    @override
    def shape_one_way(self, shape: Shape, source: str, target: str) -> None:
        """See :class:`Network`; rates are those on the wire."""
        self._shapes.say(source, target, shape)
        self._tell()

    def shape_of(self, source: str, target: str) -> Shape:
        """What was said last about that link."""
        return self._shapes.of(source, target)

    @override
    def cut_one_way(self, source: str, target: str, how: Cut = Cut.SILENT) -> None:
        """See :class:`Network`; what is under way is lost too."""
        self.check(how)
        self._cuts.say(source, target, how)
        self._tell()

    def nic(
        self, node: str = EVERY, *, up_mbit: float | None = None, down_mbit: float | None = None
    ) -> None:
        """All links of a node together carry no more than this, from it and to it.

        Args:
            node: whose network card, :data:`EVERY` for all nodes'.
            up_mbit: Mbit/s on the wire, None for no limit.
            down_mbit: the same for what it receives.

        Raises:
            ConfigError: a rate is out of range.
        """
        for rate in (up_mbit, down_mbit):
            if rate is not None and not 0 < rate <= 10 * MAX_RATE_MBIT:
                raise ConfigError(f"{rate:g} Mbit/s: a card carries at most 10 Gbit/s")
        self._cards.say(node, EVERY, Card(up_mbit, down_mbit))
        self._tell()

    @property
    def has_limited_cards(self) -> bool:
        """Some network card has a limit."""
        return any(card != Card() for _, _, card in self._cards.said)

    # ---- watching --------------------------------------------------------------------------

    @override
    def carried_bytes(self) -> dict[Pair, int]:
        """See :class:`Network`; what TCP sent twice counts twice."""
        return {pair: count.arrived_bytes for pair, count in self.counts().items()}

    def counts(self) -> dict[Pair, Count]:
        """What became of what was sent, by (from, to)."""
        found = {}
        for source, number in self._placed.items():
            counts = self._switch.counts(number)
            for target, other in self._placed.items():
                if other != number:
                    found[source, target] = counts[other]
        return found

    # ---- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Kill all processes of the hosts, and remove the hosts.  Idempotent."""
        making.remove(self._key)
        self._switch.close()

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- inside ----------------------------------------------------------------------------

    def _number_of(self, node: str) -> int:
        if node not in self._placed:
            if len(self._placed) == len(self.hosts):
                raise ConfigError(
                    f"{node} has no host: all {len(self.hosts)} have a node (dead ones keep "
                    "theirs); make the lab with more hosts"
                )
            self._placed[node] = len(self._placed)
            self._tell()
        return self._placed[node]

    def _tell(self) -> None:
        """Tell the switch what it does not know yet."""
        orders = [
            card_order(number, self._cards.of(node, EVERY)) for node, number in self._placed.items()
        ]
        for source, a in self._placed.items():
            for target, b in self._placed.items():
                if a != b:
                    orders.append(link_order(a, b, self._shapes.of(source, target)))
                    orders.append(cut_order(a, b, self._cuts.of(source, target) is not Cut.NONE))
        self._switch.obey([order for order in orders if order not in self._told])
        self._told = set(orders)


class _OnHosts:
    """Starts nodes on their hosts; see :class:`Launcher`."""

    def __init__(self, network: Namespaces, inner: Launcher) -> None:
        self._network = network
        self._inner = inner

    def launch(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: Path,
        host: Host | None = None,
    ) -> Running:
        """See :class:`Launcher`; what :meth:`Namespaces.env_for` says comes over ``env``."""
        node = env["CHAOS_NODE"]
        return self._inner.launch(
            command,
            env={**env, **self._network.env_for(node)},
            cwd=cwd,
            output=output,
            host=host or self._network.host_of(node),
        )
