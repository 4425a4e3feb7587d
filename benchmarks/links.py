"""How long it takes the peers to agree that a link is lost, or back, and the workers to go on.

    python benchmarks/links.py [--repeat 54] [--write benchmarks/results/links.md]

Four members behind the lab's relays on loopback, without delay.  One link after the other is
reset and refused, then healed, each only once in a cluster: a link that is lost again has to be
calm before it is believed.  Measured

* with workers that only answer, and with workers that train steps of 20 ms by a timer
  (``steady.py``): from the first peer that notices until the COMMIT is at every worker;
* with training workers also: from the cut until every member has a stable round under the new
  view, less an ordinary round; and how long the longest freeze was;
* with idle workers also: the processor time of the peers, from the cut on, which a busy machine
  changes less than the time itself;
* in the same run: what the bare exchange of the same messages takes, through the same relays.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bare import BareExchange
from common import Figures, machine, parser, publish
from idle import MEMBERS, IdlePeers

from lightning_chaos.demo.timings import median_round_s
from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.cluster import LocalCluster
from lightning_chaos.testing.lab.conditions import Cut
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.launch import ForkServer

SCRIPT = Path(__file__).with_name("steady.py")
EVENTS = ("lost", "back")
CONTROL, BARE = "control time with", "bare exchange of the same messages beside"
WORKERS = ("training workers", "idle workers")
APART_S = (0.05, 0.15)
"""Between two bare exchanges: like events they come at any moment of a round and out of a silence.
One right after the other, most would fall into the pauses of training."""
PATIENCE_S = 60.0
SETTLE_ROUNDS = 10
PAIRS = [*itertools.combinations([f"n{i + 1}" for i in range(MEMBERS)], 2)]


async def idle(figures: Figures, pairs: Sequence[tuple[str, str]]) -> None:
    """Workers that only answer."""
    with tempfile.TemporaryDirectory() as directory, Relays() as relays:
        async with IdlePeers(Path(directory), relays) as peers:
            for a, b in pairs:
                lost = await peers.link(lambda a=a, b=b: relays.cut(a, b, Cut.RESET))  # type: ignore[misc]
                figures.add(f"link lost: {CONTROL} idle workers", lost)
                figures.add("link lost: processor time of the four peers", peers.busy_s)
                back = await peers.link(lambda a=a, b=b: relays.heal(a, b))  # type: ignore[misc]
                figures.add(f"link back: {CONTROL} idle workers", back)


async def bare(figures: Figures, repeat: int, where: str) -> None:
    """The bare exchange, so often."""
    with Relays() as relays:
        async with BareExchange(relays) as exchange:
            for what in EVENTS:
                for _ in range(repeat):
                    await asyncio.sleep(random.uniform(*APART_S))
                    figures.add(f"link {what}: {BARE} {where}", await exchange.seconds(what))


class Training:
    """A training cluster behind relays.

    Args:
        cluster: of members that are up.
        relays: their links.
        figures: receives what is measured.
    """

    def __init__(self, cluster: LocalCluster, relays: Relays, figures: Figures) -> None:
        self._cluster, self._relays, self._figures = cluster, relays, figures
        self._rounds(SETTLE_ROUNDS)
        self.ordinary_s = median_round_s(cluster.events)

    def lose(self, a: str, b: str) -> None:
        """Cut a link and see what it costs."""
        fresh, cut = self._change(lambda: self._relays.cut(a, b, Cut.RESET), "is lost")
        epoch = self._control("link lost", fresh, "is lost")
        first: dict[str, float] = {}
        for e in fresh:
            if e.event == "round" and e["epoch"] >= epoch:
                first.setdefault(e.node, e.t)
        took = max(0.0, max(first.values()) - cut - self.ordinary_s)
        self._figures.add(
            "link lost: cut until all have a stable round, less an ordinary one", took
        )
        freezes = [e["seconds"] for e in fresh if e.event == "freeze"]
        self._figures.add("link lost: longest freeze", max(freezes))

    def take_back(self, a: str, b: str) -> None:
        """Heal it."""
        fresh, _ = self._change(lambda: self._relays.heal(a, b), "works again")
        self._control("link back", fresh, "works again")

    def _control(self, what: str, fresh: Sequence[LogEvent], reason: str) -> int:
        """Note the time; returns the epoch of the view that answers."""
        noticed = min(e.t for e in fresh if e.event == "links")
        commits = [e for e in fresh if e.event == "commit" and reason in e["reason"]]
        seconds = max(e.t for e in commits) - noticed
        self._figures.add(f"{what}: {CONTROL} training workers", seconds)
        return int(commits[0]["epoch"])

    def _change(self, act: Callable[[], None], reason: str) -> tuple[list[LogEvent], float]:
        begun = len(self._cluster.events)
        at = time.time()
        act()

        def everywhere(_: Sequence[LogEvent]) -> bool:
            views = [e for e in self._cluster.events[begun:] if e.event == "view"]
            return len({e.node for e in views if reason in e["reason"]}) == MEMBERS

        self._cluster.wait_for(everywhere, PATIENCE_S, f"a view because a link {reason}")
        self._rounds(SETTLE_ROUNDS)
        return sorted(self._cluster.events[begun:], key=lambda e: e.t), at

    def _rounds(self, count: int) -> None:
        def last() -> int:
            return max((e["round"] for e in self._cluster.events if e.event == "round"), default=-1)

        until = last() + count
        self._cluster.wait_for(lambda _: last() >= until, PATIENCE_S, f"round {until}")


def train(
    server: ForkServer, figures: Figures, pairs: Sequence[tuple[str, str]], repeat: int
) -> float:
    """All pairs in one cluster, the bare exchange beside it; returns an ordinary round, seconds."""
    with (
        Relays() as relays,
        LocalCluster(
            SCRIPT,
            args=["--ballast-mb", "1"],
            env={"CHAOS_LINGER": "0", "CHAOS_MIN_MEMBERS": str(MEMBERS)},
            launcher=server,
        ) as cluster,
    ):
        for place in range(MEMBERS):
            node, event = f"n{place + 1}", "pull" if place else "start"
            cluster.start(node, env=relays.env_for(node))
            cluster.wait_for(
                lambda found, n=node, e=event: any(x.node == n and x.event == e for x in found),  # type: ignore[misc]
                PATIENCE_S,
                f"{node} to join",
            )
        training = Training(cluster, relays, figures)
        for a, b in pairs:
            training.lose(a, b)
            training.take_back(a, b)
        if repeat:
            asyncio.run(bare(figures, repeat, "training workers"))
        return training.ordinary_s


def ratios(figures: Figures) -> str:
    """How many times the bare exchange an event takes, in the median."""
    told = []
    for what, workers in itertools.product(EVENTS, WORKERS):
        ours, least = (
            statistics.median(figures.samples[f"link {what}: {kind} {workers}"])
            for kind in (CONTROL, BARE)
        )
        told.append(f"link {what}, {workers} {ours / least:.1f}")
    return f"Control time over the bare exchange's, medians: {'; '.join(told)}."


def main() -> None:
    """Measure and print; see the module."""
    arguments_of = parser(__doc__.splitlines()[0])
    arguments_of.add_argument(
        "--repeat", type=int, default=54, help="times each; rounded up (default: %(default)s)"
    )
    arguments = arguments_of.parse_args()
    pairs = PAIRS[-1:] if arguments.smoke else PAIRS
    times = 1 if arguments.smoke else -(-arguments.repeat // len(PAIRS))
    figures = Figures()
    rounds = []
    with ForkServer() as server:
        for last in (False,) * (times - 1) + (True,):
            rounds.append(train(server, figures, pairs, times * len(pairs) if last else 0))
    for _ in range(times):
        asyncio.run(idle(figures, pairs))
    asyncio.run(bare(figures, times * len(pairs), "idle workers"))
    about = (
        f"{MEMBERS} members behind relays on loopback, one thread each; ordinary round "
        f"{statistics.median(rounds) * 1e3:.1f} ms, of which 20 ms are the step's timer."
    )
    publish(
        "\n".join([machine(), about, "", *figures.rows(), "", ratios(figures)]) + "\n",
        arguments.write,
    )


if __name__ == "__main__":
    main()
