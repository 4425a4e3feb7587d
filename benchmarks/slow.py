"""What one member ten times slower than the others costs, by policy.

    python benchmarks/slow.py [--rounds 30] [--smoke] [--write benchmarks/results/slow.md]

Real processes on loopback with a Trainer each, whose batches take 2 ms a sample: of the slow member
20 ms.  That is a sleep, so that members do not take processors from each other.  The row without a
slow member is what there is to gain.  Idle is the share of the rounds' time in which members waited
for others; rounds before the policy has taken effect are left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import machine, parser, publish

from lightning_chaos.monitor.runlog import LogEvent
from lightning_chaos.testing.cluster import LocalCluster
from lightning_chaos.testing.launch import ForkServer

NODES = ("n1", "n2", "n3", "n4")
SLOW = "n3"
SAMPLE_S = 0.002
BATCH = 16
SETTLE = 12
PATIENCE_S = 120.0
CASES = {"nobody is slow": "keep", "keep": "keep", "share": "share", "standby": "standby"}


def member(slow: str) -> None:
    """One process of the run."""
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader, TensorDataset

    seconds = SAMPLE_S * (10 if os.environ["CHAOS_NODE"] == slow else 1)

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(8, 1)

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            time.sleep(seconds * len(batch[0]))
            return self.line(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    torch.set_num_threads(1)
    trainer = pl.Trainer(
        strategy="chaos",
        accelerator="cpu",
        devices=1,
        max_epochs=100_000,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), DataLoader(TensorDataset(torch.ones(100_000, 8)), batch_size=BATCH))


def play(case: str, rounds: int, server: ForkServer) -> list[LogEvent]:
    """Run until the policy has taken effect, and so many rounds more; what all logged of these."""
    slow = SLOW if case in ("keep", "share", "standby") else "-"
    expected = len(NODES) - (case == "standby")
    with tempfile.TemporaryDirectory() as directory:
        env = {"CHAOS_SLOW": CASES[case], "CHAOS_MIN_MEMBERS": "1", "CHAOS_LINGER": "0"}
        place = Path(directory) / "cluster"
        args = ["--member", slow]
        with LocalCluster(
            Path(__file__), args=args, directory=place, env=env, launcher=server
        ) as run:
            run.start(NODES[0])
            run.wait_for(lambda found: any(e.event == "start" for e in found), PATIENCE_S, "n1")
            run.start(*NODES[1:])

            def together(found: list[LogEvent]) -> int | None:
                """The first round of all four."""
                told = (e for e in found if e.event == "round" and len(e["members"]) == len(NODES))
                return next((int(e["round"]) for e in told), None)

            first = run.wait_for(together, PATIENCE_S, "a round of all") + SETTLE
            run.wait_for(
                lambda found: any(
                    e.event == "round"
                    and e["round"] >= first + rounds
                    and len(e["members"]) == expected
                    for e in found
                ),
                PATIENCE_S,
                "enough rounds",
            )
            told = (e for e in run.events if e.event == "round")
            return [e for e in told if first <= e["round"] < first + rounds]


def row(case: str, events: list[LogEvent]) -> str:
    """A line of the table."""
    oldest = [e for e in events if e.node == NODES[0]]
    seconds = sum(e["round_s"] for e in oldest)
    samples = sum(sum(e["weights"]) for e in oldest)
    idle = sum(e["wait_s"] for e in events) / sum(e["round_s"] for e in events)
    members = statistics.median(len(e["members"]) for e in oldest)
    milliseconds = statistics.median(e["round_s"] for e in oldest) * 1e3
    figures = f"{members:.0f} | {milliseconds:.0f} ms | {samples / seconds:.0f} | {idle:.0%}"
    return f"| {case} | {len(oldest)} | {figures} |"


def main() -> None:
    """Measure and print; see the module."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument(
        "--rounds", type=int, default=30, help="of each policy (default: %(default)s)"
    )
    options.add_argument("--member", default="", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.member:
        member(asked.member)
        return
    cases = ["share"] if asked.smoke else list(CASES)
    rounds = 5 if asked.smoke else asked.rounds
    with ForkServer() as server:
        rows = [row(case, play(case, rounds, server)) for case in cases]
    lines = [
        machine(),
        f"{len(NODES)} members on loopback, batches of {BATCH}, {SAMPLE_S * 1e3:g} ms a sample, of "
        f"{SLOW} ten times that; {SETTLE} rounds to settle.",
        "",
        "| policy | rounds | members | round, median | samples/s | idle |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    publish("\n".join(lines) + "\n", asked.write)


if __name__ == "__main__":
    main()
