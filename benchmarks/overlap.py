"""What it gains that buckets of gradients leave while backward goes on.

    python benchmarks/overlap.py [--repeat 15] [--smoke] [--write benchmarks/results/overlap.md]

Two real processes on loopback, one thread per worker, with the strategy's own reducer and node but
no Trainer.  The model is a chain of layers of one bucket each; its backward also waits for a timer
in every layer, as a device's kernels would take their time, and links are paced, so that there is
something to overlap.  Every repetition measures four things, each after a barrier: backward alone,
the reduction alone, the one and then the other, and both overlapped.  So "one after the other" is
the same code in the same run, not a switch of the product.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import machine, milliseconds, publish
from members import measured, parser, seated_node
from torch import Tensor, nn

from lightning_chaos.collective.reducer import Contribution, Reducer
from lightning_chaos.worker.node import Node

WIDTH = 1024  # a layer's weights are as many bytes as a bucket has
WARM = 2
MEMBERS = 2
KINDS = ("backward", "reduction", "one after the other", "overlapped")


class Timer(torch.autograd.Function):
    """Passes values and gradients through; its backward takes a given time."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        return values.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        time.sleep(ctx.seconds)
        return grad, None


class Chain(nn.Module):
    """Layers whose backward takes ``layer_s`` seconds each, at least."""

    def __init__(self, layers: int, layer_s: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers))
        self._layer_s = layer_s

    def forward(self, values: Tensor) -> Tensor:
        for layer in self.layers:
            # Its timer runs before its gradient is made.
            values = Timer.apply(layer(values), self._layer_s)
        return values


class Rounds:
    """What a round does with gradients, in the ways to compare."""

    def __init__(self, node: Node, model: nn.Module) -> None:
        self.node, self.model = node, model
        self.reducer = Reducer(model)

    def backward(self) -> Contribution:
        """Backward, and its gradients in the flat vector."""
        self.loss.backward()
        return self.reducer.contribution(1.0)

    def reduce(self, given: Contribution) -> None:
        """The reduction of what backward has left."""
        self.node.operate("bench", b"", given.vector.numpy(), 1.0, given.buckets)

    def overlapped(self) -> None:
        """Both at once."""

        def begin(vector: Tensor, buckets: tuple[tuple[int, int], ...]) -> None:
            self.node.begin_operation("bench", vector.numpy(), 1.0, buckets)

        self.reducer.expect(1.0, None, begin, self.node.give)
        given = self.backward()
        if self.node.operation_begun:
            self.node.end_operation(b"")
        else:  # the first time
            self.reduce(given)

    def ready(self, kind: str) -> Callable[[], object]:
        """What is to be timed, with everything before it done."""
        self.model.zero_grad()
        self.loss = self.model(torch.ones(1, WIDTH)).sum()
        match kind:
            case "backward":
                return self.backward
            case "reduction":
                return partial(self.reduce, self.backward())
            case "one after the other":
                return lambda: self.reduce(self.backward())
            case _:
                return self.overlapped

    def timed(self, kind: str) -> float:
        """Seconds of one of the kinds, from a common start."""
        work = self.ready(kind)
        self.node.operate("barrier")
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun


def member(rate_bytes_per_s: float, layers: int, layer_s: float, repeat: int) -> None:
    """One process of the run; logs what took how long."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with seated_node(MEMBERS, rate_bytes_per_s) as node:
        rounds = Rounds(node, Chain(layers, layer_s))
        for i in range(WARM + repeat):
            seconds = {kind: rounds.timed(kind) for kind in KINDS}
            if i >= WARM:
                node.log("measured", **seconds)
        node.operate("barrier")


def main() -> None:
    """Measure and print; see the module."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--repeat", type=int, default=15, help="times each (default: %(default)s)")
    options.add_argument(
        "--layers", type=int, default=8, help="of the model (default: %(default)s)"
    )
    options.add_argument(
        "--layer-ms", type=float, default=15.0, help="timer in each layer (default: %(default)s)"
    )
    options.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[1000, 2000, 4000],
        help="Mbit/s of the link (default: %(default)s)",
    )
    asked = options.parse_args()
    if asked.members:
        rate = asked.rates[0] * 1e6 / 8
        member(rate, asked.layers, asked.layer_ms / 1e3, asked.repeat)
        return
    if asked.smoke:
        asked.rates, asked.repeat = [4000], 3
    rows = []
    for rate in asked.rates:
        args = ["--repeat", str(asked.repeat), "--layers", str(asked.layers)]
        args += ["--layer-ms", str(asked.layer_ms), "--rates", str(rate)]
        found = measured(Path(__file__), MEMBERS, args)
        seconds = {kind: [e[kind] for e in found] for kind in KINDS}
        middle = {kind: statistics.median(seconds[kind]) for kind in KINDS}
        gain = 1 - middle["overlapped"] / middle["one after the other"]
        figures = " | ".join(milliseconds(seconds[kind]) for kind in KINDS)
        rows.append(f"| {rate:.0f} Mbit/s | {len(found)} | {figures} | {gain:.0%} |")
    lines = [
        machine(),
        f"{MEMBERS} members on loopback, one thread per worker, links paced; {asked.layers} layers "
        f"of {WIDTH * WIDTH * 4 / 1e6:.1f} MB, a timer of {asked.layer_ms:g} ms in the backward of "
        "each; median and the middle eight tenths in ms.",
        "",
        f"| link | n | {' | '.join(KINDS)} | saved |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    publish("\n".join(lines) + "\n", asked.write)


if __name__ == "__main__":
    main()
