"""What befalls the workers of :mod:`collective_network`: crashes, lost links, recoveries."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import combinations

from collective_network import Network, program, view_of

from lightning_chaos.protocol.values import Decision, Uid


def some_steps(network: Network, most: int) -> None:
    for _ in range(network.rng.randrange(most)):
        network.step()


def under_way(names: str, rng: random.Random, missing: Iterable[str] = ()) -> Network:
    """A run at a random moment."""
    network = Network(names, rng, program(rng, 3))
    network.news[1] = (view_of(1, names, missing=missing), None)
    for node in network.nodes.values():
        network.install(node, 1)
    some_steps(network, 150)
    return network


def frozen(network: Network, epoch: int, missing: Iterable[str] = ()) -> Decision:
    """All freeze, one after the other, and the lead decides."""
    nodes = list(network.nodes.values())
    for node in network.rng.sample(nodes, len(nodes)):
        some_steps(network, 6)
        network.freeze(node)
    some_steps(network, 6)
    return network.decide(epoch, list(network.nodes), missing)


def installed(network: Network, epoch: int, uids: Sequence[Uid]) -> None:
    """These get the COMMIT, one after the other."""
    for uid in uids:
        some_steps(network, 10)
        network.install(network.nodes[uid], epoch)


def kinds(network: Network, decision: Decision, lost: bool) -> set[str]:
    """What a decision asks for."""
    running = [node.report.current for node in network.nodes.values() if node.report]
    found = {"behind"} if decision.behind else set()
    if decision.held:
        return found | {"pass" if lost else "keep"}
    if any(current and current > decision.finished for current in running):
        found.add("redo")
    return found


def joined(names: Iterable[str], missing: Iterable[str]) -> bool:
    """Links are left from any of these to any other."""
    left, dead = set(names), {frozenset(pair) for pair in missing}
    level = {left.pop()}
    while level:
        level = {b for b in left if any(frozenset((a, b)) not in dead for a in level)}
        left -= level
    return not left


def random_links(rng: random.Random) -> tuple[str, list[str]]:
    """Names, and missing links that leave them joined."""
    names = "abcdefg"[: rng.randint(2, 7)]
    missing: list[str] = []
    pairs = ["".join(pair) for pair in combinations(names, 2)]
    for pair in rng.sample(pairs, rng.randint(0, len(pairs))):
        if joined(names, [*missing, pair]):
            missing.append(pair)
    return names, missing
