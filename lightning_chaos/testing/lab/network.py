"""What the lab can do to the links between nodes, whatever carries them."""

from __future__ import annotations

import abc

from lightning_chaos.testing.lab.conditions import Cut, Shape
from lightning_chaos.testing.lab.rules import EVERY, Pair


class Network(abc.ABC):
    """Links between nodes of this machine, shaped, cut and healed while bytes flow.

    Conditions hold per ordered pair of nodes, for every node that was or will be started;
    :data:`EVERY` is all nodes, and the latest word about a pair counts.
    """

    @abc.abstractmethod
    def env_for(self, node: str) -> dict[str, str]:
        """Variables that put a node into this network."""

    @abc.abstractmethod
    def check(self, what: Shape | Cut) -> None:
        """Whether its links can be like this.

        Raises:
            ConfigError: they cannot; the message names what can.
        """

    @abc.abstractmethod
    def shape_one_way(self, shape: Shape, source: str, target: str) -> None:
        """From ``source`` to ``target`` links are like this from now on.

        Raises:
            ConfigError: see :meth:`check`.
        """

    @abc.abstractmethod
    def cut_one_way(self, source: str, target: str, how: Cut = Cut.SILENT) -> None:
        """Cut links from ``source`` to ``target`` alone.

        Raises:
            ConfigError: see :meth:`check`.
        """

    @abc.abstractmethod
    def carried_bytes(self) -> dict[Pair, int]:
        """Bytes of payload that arrived so far, by (from, to)."""

    def shape(self, shape: Shape, a: str = EVERY, b: str = EVERY) -> None:
        """Both directions of these links are like this from now on."""
        for source, target in {(a, b), (b, a)}:
            self.shape_one_way(shape, source, target)

    def cut(self, a: str, b: str, how: Cut = Cut.SILENT) -> None:
        """Cut both directions of these links."""
        for source, target in {(a, b), (b, a)}:
            self.cut_one_way(source, target, how)

    def heal(self, a: str = EVERY, b: str = EVERY) -> None:
        """These links carry again, both ways; their shape stays."""
        self.cut(a, b, Cut.NONE)
