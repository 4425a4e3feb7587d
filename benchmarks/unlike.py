"""What a plan for measured links gains where links are unlike: rounds before and after it.

    python benchmarks/unlike.py [--case 1..4] [--write benchmarks/results/unlike.md]

Four members behind the lab's relays on loopback train steps of 20 ms by a timer (``steady.py``),
whose gradients are a vector of some megabytes.  They begin with the plan that counts all links as
equal.  Once their links are measured and another plan has promised enough for long enough, the lead
proposes that one.  What it says that both plans take is set beside the rounds before and after.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import machine, parser, publish

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.cluster import LocalCluster
from lightning_chaos.testing.lab.conditions import Shape
from lightning_chaos.testing.lab.relays import Relays
from lightning_chaos.testing.launch import ForkServer

SCRIPT = Path(__file__).with_name("steady.py")
PATIENCE_S = 90.0
ROUNDS = 12
NODES = ("n1", "n2", "n3", "n4")
FAST_MBIT = 100.0
"""So that twelve ways at once leave the processors time to spare."""
PROMISE = re.compile(r"better plan for the links as measured: (\d+) ms become (\d+) ms")


@dataclass(frozen=True)
class Outcome:
    """Of one case, seconds."""

    what: str
    promised: tuple[float, float]
    """Reduction by the plan before and after, as the lead says."""
    measured: tuple[float, float]
    """Rounds before and after, median, less the step's timer."""

    def row(self) -> str:
        """Markdown."""
        cells = [f"{p * 1e3:.0f} → {q * 1e3:.0f} ms" for p, q in (self.promised, self.measured)]
        gains = [f"{p / q:.2f}" for p, q in (self.promised, self.measured)]
        return f"| {self.what} | {' | '.join(cells)} | {' | '.join(gains)} |"


@dataclass(frozen=True)
class Case:
    """Which links are slow, and how slow."""

    what: str
    slow: Sequence[tuple[str, str]]
    mbit: float


ONE_OF_FOUR = [(NODES[3], other) for other in NODES[:3]]
CASES = (
    Case("one link slow by 10", [NODES[2:4]], 10.0),
    Case("two links slow by 10", [NODES[0:2], NODES[2:4]], 10.0),
    Case("all links of one member slow by 4", ONE_OF_FOUR, 25.0),
    Case("all links of one member slow by 10", ONE_OF_FOUR, 10.0),
)


def measure(server: ForkServer, case: Case, width: int) -> Outcome:
    """Train until a better plan has come and a few rounds more."""
    with (
        Relays() as relays,
        LocalCluster(
            SCRIPT,
            args=["--ballast-mb", "0", "--width", str(width)],
            env={"CHAOS_LINGER": "0", "CHAOS_MIN_MEMBERS": str(len(NODES))},
            launcher=server,
        ) as cluster,
    ):
        relays.shape(Shape(rate_mbit=FAST_MBIT, delay_ms=1))
        for a, b in case.slow:
            relays.shape(Shape(rate_mbit=case.mbit, delay_ms=1), a, b)
        for node in NODES:
            cluster.start(node, env=relays.env_for(node))
            cluster.wait_for(
                lambda found, n=node: any(e.node == n and e.event == "ready" for e in found),  # type: ignore[misc]
                PATIENCE_S,
                f"{node} to join",
            )

        def better() -> LogEvent | None:
            views = (e for e in cluster.events if e.event == "view" and e.node == NODES[0])
            return next((e for e in views if PROMISE.search(e["reason"])), None)

        def rounds(node: str = NODES[0]) -> list[LogEvent]:
            return [e for e in cluster.events if e.event == "round" and e.node == node]

        cluster.wait_for(lambda _: better() is not None, PATIENCE_S, "a better plan")
        view = better()
        assert view is not None
        until = view["switch"] + ROUNDS
        cluster.wait_for(lambda _: rounds()[-1]["round"] > until, PATIENCE_S, f"round {until}")
        promise = PROMISE.search(view["reason"])
        assert promise is not None
        before = [e for e in rounds() if e["round"] < view["switch"]][-ROUNDS:]
        after = [e for e in rounds() if e["round"] > view["switch"]]
    spans = (
        statistics.median(b.t - a.t for a, b in itertools.pairwise(some)) - 0.02
        for some in (before, after)
    )
    return Outcome(
        case.what, (int(promise[1]) / 1e3, int(promise[2]) / 1e3), (next(spans), next(spans))
    )


def main() -> None:
    """Measure and print; see the module."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--case", type=int, choices=range(1, len(CASES) + 1), help="only this one")
    arguments = options.parse_args()
    width = 512 if arguments.smoke else 720
    wanted = CASES[:1] if arguments.smoke else CASES
    if arguments.case:
        wanted = (CASES[arguments.case - 1],)
    with ForkServer() as server:
        outcomes = [measure(server, case, width) for case in wanted]
    about = (
        f"{len(NODES)} members behind relays on loopback, {FAST_MBIT:g} Mbit/s and 1 ms each way, "
        f"gradients of {width**2 * 4e-6:.1f} MB; one thread each. "
        "Promised: what the lead says that a reduction takes by the plan for equal links and by "
        "the one for measured links. Measured: median round before and after, less the 20 ms of a "
        "step."
    )
    head = "| links | promised | measured | gain promised | gain measured |\n|---|---|---|---|---|"
    publish(
        "\n".join([machine(), about, "", head, *(o.row() for o in outcomes)]) + "\n",
        arguments.write,
    )


if __name__ == "__main__":
    main()
