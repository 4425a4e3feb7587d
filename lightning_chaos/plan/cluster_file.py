"""A cluster in a YAML file: who has the state, who wants it, and the links between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import yaml

from lightning_chaos.errors import ConfigError
from lightning_chaos.planning.chain import check_chain, shard_chain
from lightning_chaos.planning.graph import BYTES_PER_S_PER_MBIT, Cap, Graph, Link
from lightning_chaos.planning.policies import Costs, Scene
from lightning_chaos.planning.pull import donors_of
from lightning_chaos.planning.several import SeveralPlan, plan_several

_MOST_MB = 1e12


class ClusterFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says; docs/planning.md has the table of its fields."""

    members: list[str]
    newcomers: list[str]
    links: dict[str, Link]
    state_mb: float | None = None
    tensors_mb: list[float] = []
    caps: dict[str, Cap] = {}
    release_ms: dict[str, float] = {}
    overhead_ms: float = 0.0
    shard_kib: list[int] = []
    costs: Costs = Costs()


class Cluster(msgspec.Struct, frozen=True):
    """A cluster file, checked."""

    graph: Graph
    members: tuple[str, ...]
    newcomers: tuple[str, ...]
    total_bytes: int
    tensors: tuple[int, ...]
    sizes: tuple[int, ...]
    releases_s: dict[str, float]
    overhead_s: float
    costs: Costs

    def scene(self, newcomer: str) -> Scene:
        """What the policies are asked about, for one newcomer.

        Raises:
            ConfigError: no member has a link to it.
        """
        return Scene(
            total_bytes=self.total_bytes,
            donors=tuple(
                donors_of(self.graph, newcomer, self.members, self.releases_s, self.overhead_s)
            ),
            sizes=self.sizes,
            ingress_bytes_per_s=self.graph.cap(newcomer).down_mbit * BYTES_PER_S_PER_MBIT,
            tensors=self.tensors,
            costs=self.costs,
            joining=len(self.newcomers),
        )

    def egress(self) -> dict[str, float]:
        """What each member sends to all newcomers together, bytes/s."""
        return {n: self.graph.cap(n).up_mbit * BYTES_PER_S_PER_MBIT for n in self.members}

    def several(self) -> SeveralPlan:
        """The best plan for all newcomers together, over the shard sizes.

        Raises:
            ConfigError: a newcomer to whom no member has a link.
        """
        return plan_several(
            self.total_bytes,
            self.sizes,
            self.graph,
            self.newcomers,
            self.members,
            self.releases_s,
            self.overhead_s,
        )


def read_cluster(path: Path) -> Cluster:
    """The cluster that a file describes.

    Raises:
        ConfigError: the file cannot be read, or what is wrong in it.
    """
    try:
        text = path.read_bytes()
        # Not strict: to YAML 1.1 a number such as 1e3 is a text.
        told = msgspec.yaml.decode(text, type=ClusterFile, strict=False)
    except (OSError, msgspec.MsgspecError) as error:
        # in one line: what YAML says of a place has several
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not a cluster file: {reason}") from None
    try:
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader))
        return _cluster(told)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _check_keys(node: yaml.Node) -> None:
    """Refuse what YAML takes in silence: of two values of one name the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    for name, times in Counter(key.value for key, _ in node.value).items():
        if times > 1:
            raise ConfigError(f"{name} is given twice")
    for _, value in node.value:
        _check_keys(value)


def _cluster(told: ClusterFile) -> Cluster:
    if not told.members:
        raise ConfigError("members: no donor; name at least one that has the state")
    if not told.newcomers:
        raise ConfigError("newcomers: none; name at least one that wants the state")
    tensors = tuple(_bytes(mb, "tensors_mb") for mb in told.tensors_mb)
    if (told.state_mb is None) == (not tensors):
        raise ConfigError("give the size of the state once: state_mb or tensors_mb")
    total = sum(tensors) if told.state_mb is None else _bytes(told.state_mb, "state_mb")
    if total == 0:
        raise ConfigError("the state is empty: there is nothing to pull")
    sizes = tuple(kib * 1024 for kib in told.shard_kib) or shard_chain(total)
    check_chain(sizes)
    if sizes[0] > total:
        raise ConfigError(f"shard_kib: a shard of {sizes[0]} bytes is more than the {total} in all")
    for name in told.release_ms:
        if name not in told.members:
            raise ConfigError(f"release_ms is given for {name}, which is not a member")
    return Cluster(
        graph=Graph((*told.members, *told.newcomers), _links(told.links), told.caps),
        members=tuple(told.members),
        newcomers=tuple(told.newcomers),
        total_bytes=total,
        tensors=tensors,
        sizes=sizes,
        releases_s={name: ms / 1e3 for name, ms in told.release_ms.items()},
        overhead_s=told.overhead_ms / 1e3,
        costs=told.costs,
    )


def _bytes(megabytes: float, what: str) -> int:
    if not 0 <= megabytes <= _MOST_MB:
        raise ConfigError(
            f"{what}: {megabytes} MB; it must be finite and not negative, {_MOST_MB:g} at most"
        )
    return round(megabytes * 1e6)


def _links(told: dict[str, Link]) -> dict[tuple[str, str], Link]:
    links: dict[tuple[str, str], Link] = {}
    for ends, link in told.items():
        for pair in _pairs(ends):
            if pair in links:
                raise ConfigError(f"links: {pair[0]} -> {pair[1]} is given twice")
            links[pair] = link
    return links


def _pairs(ends: str) -> Iterator[tuple[str, str]]:
    """``a -> b`` is one link, ``a <-> b`` two."""
    both = "<->" in ends
    sender, arrow, receiver = ends.partition("<->" if both else "->")
    if not arrow:
        raise ConfigError(f"links: {ends!r} names no link; write 'a -> b', or 'a <-> b' for both")
    yield sender.strip(), receiver.strip()
    if both:
        yield receiver.strip(), sender.strip()
