"""How long a reduction of a flat float32 vector takes, beside gloo's in the same run.

    python benchmarks/allreduce.py [--repeat 21] [--smoke] [--write benchmarks/results/allreduce.md]

Real processes on loopback, one thread per worker, each a node of the house (worker and peer, no
Trainer) and a rank of a gloo group.  Every repetition does one of our operations and one gloo
``all_reduce`` of the same vector, in turns first, each after a barrier; its time is that of the
slowest member.  Ours is what a round does: contributions weighted and summed in member order,
a header gathered from all, results kept for a recovery.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from common import machine, milliseconds, publish
from members import measured, parser, seated_node

from lightning_chaos.collective.flat import buckets

BUCKET_BYTES = 4 << 20  # as the strategy's
WARM = 3


def timed(work: Callable[[], object]) -> float:
    """Seconds it took the slowest member, from a common start."""
    dist.barrier()
    begun = time.perf_counter()
    work()
    seconds = torch.tensor(time.perf_counter() - begun, dtype=torch.float64)
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return float(seconds)


def member(members: int, meet: str, sizes: list[int], repeat: int) -> None:
    """One process of the run: measures in step with the others, and logs what took how long."""
    torch.set_num_threads(1)
    with seated_node(members) as node:
        rank = node.view.uids.index(node.uid)
        dist.init_process_group("gloo", f"file://{meet}", rank=rank, world_size=members)
        for size in sizes:
            source = torch.randn(size // 4, generator=torch.Generator().manual_seed(rank))
            theirs, cut = source.clone(), buckets(0, len(source), BUCKET_BYTES)
            results = []

            def ours(source: torch.Tensor = source, cut=cut, results=results) -> None:  # noqa: ANN001
                outcome = node.operate("bench", b"", source.numpy(), 1.0, cut)
                results.append(outcome)

            for i in range(WARM + repeat):
                theirs.copy_(source)
                pair = [ours, lambda theirs=theirs: dist.all_reduce(theirs)]
                order = (0, 1) if i % 2 else (1, 0)
                seconds = dict.fromkeys(order, 0.0)
                for which in order:
                    seconds[which] = timed(pair[which])
                result = results.pop().result
                torch.testing.assert_close(torch.from_numpy(result) * members, theirs)
                if i >= WARM:
                    node.log("measured", size=size, ours=seconds[0], gloo=seconds[1])
        dist.barrier()
        dist.destroy_process_group()


def main() -> None:
    """Measure and print; see the module."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--repeat", type=int, default=21, help="times each (default: %(default)s)")
    options.add_argument(
        "--megabytes",
        type=int,
        nargs="+",
        default=[1, 10, 100],
        help="vectors (default: %(default)s)",
    )
    options.add_argument(
        "--counts", type=int, nargs="+", default=[2, 4], help="members (default: %(default)s)"
    )
    asked = options.parse_args()
    sizes = [mb * 1_000_000 for mb in asked.megabytes]
    if asked.members:
        member(asked.members, asked.meet, sizes, asked.repeat)
        return
    if asked.smoke:
        asked.counts, asked.megabytes, asked.repeat = [2], [1], 3
    rows = []
    for count in asked.counts:
        megabytes = [str(mb) for mb in asked.megabytes]
        args = ["--repeat", str(asked.repeat), "--megabytes", *megabytes]
        found = measured(Path(__file__), count, args)
        for mb in asked.megabytes:
            mine = [e for e in found if e["size"] == mb * 1_000_000]
            ours, gloo = [e["ours"] for e in mine], [e["gloo"] for e in mine]
            ratio = statistics.median(gloo) / statistics.median(ours)
            figures = f"{milliseconds(ours)} | {milliseconds(gloo)} | {ratio:.2f}"
            rows.append(f"| {count} | {mb} MB | {len(ours)} | {figures} |")
    lines = [
        machine(),
        "Loopback, one thread per worker; median and the middle eight tenths in ms. Speed is "
        "gloo's median time over ours.",
        "",
        "| members | vector | n | ours | gloo | speed against gloo |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    publish("\n".join(lines) + "\n", asked.write)


if __name__ == "__main__":
    main()
