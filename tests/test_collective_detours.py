"""Failures where links are missing, or go and come: results take the links that there are."""

from __future__ import annotations

import random
from collections import Counter

from collective_failures import (
    frozen,
    installed,
    joined,
    kinds,
    random_links,
    some_steps,
    under_way,
)
from collective_network import Network

from lightning_chaos.protocol.values import Decision


def befall(network: Network, missing: list[str]) -> str:
    """A member is killed, or a link goes or comes; those that stay are joined by links.

    Returns:
        What happened; ``missing`` is brought up to date.
    """
    rng = network.rng
    names = [uid.partition("/")[0] for uid in network.nodes]
    what = rng.choice(["crash", "cut", "cut", "mend"])
    if what == "crash":
        left = [n for n in names if len(names) > 1 and joined(set(names) - {n}, missing)]
        if left:
            network.kill(f"{rng.choice(left)}/1")
            return what
    elif what == "cut":
        pairs = [a + b for a in names for b in names if a < b and a + b not in missing]
        left = [pair for pair in pairs if joined(names, [*missing, pair])]
        if left:
            pair = rng.choice(left)
            missing.append(pair)
            network.cut(f"{pair[0]}/1", f"{pair[1]}/1")
            return what
    elif missing:
        missing.remove(rng.choice(missing))
        return what
    return "nothing"


def detours(network: Network, decision: Decision, epoch: int) -> set[str]:
    """Which results have to pass through others."""
    view, _ = network.news[epoch]
    found = set()
    if any(not any(view.joins(s, uid) for s in decision.sources) for uid in decision.behind):
        found.add("no source next to one behind")
    if any(not view.joins(h, uid) for h in decision.held.values() for uid in view.uids if uid != h):
        found.add("no holder next to one that lacks it")
    reports = [node.report for node in network.nodes.values() if node.report]
    same = all(set(r.contributors) == set(view.uids) for r in reports)
    if same and any(r.held for r in reports) and not decision.held and not decision.behind:
        found.add("held under another plan")
    return found


def test_whatever_fails_members_that_links_join_end_with_the_same_results() -> None:
    hits: Counter[str] = Counter()
    for seed in range(400):
        rng = random.Random(60_000 + seed)
        names, missing = random_links(rng)
        network = under_way(names, rng, missing)
        for epoch in range(2, 2 + rng.randint(1, 3)):
            what = befall(network, missing)
            decision = frozen(network, epoch, missing)
            asked = kinds(network, decision, lost=what == "crash")
            hits.update(f"{what}: {kind}" for kind in asked)
            hits.update(detours(network, decision, epoch))
            uids = list(network.nodes)
            installed(network, epoch, rng.sample(uids, rng.randint(0, len(uids))))
            some_steps(network, 30)
        frozen(network, 9, missing)
        installed(network, 9, rng.sample(list(network.nodes), len(network.nodes)))
        network.run()
        network.check()
    often = ["crash: behind", "crash: redo", "cut: behind", "cut: redo", "nothing: keep"]
    often += ["no source next to one behind", "no holder next to one that lacks it"]
    assert all(hits[what] > 5 for what in (*often, "held under another plan")), hits
    assert hits["crash: pass"], hits
    assert hits["cut: keep"], hits
