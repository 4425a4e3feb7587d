"""What a learner pulls, once it is known which state most donors have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_chaos.planning.pull import DonorLink, plan_pull
from lightning_chaos.protocol.values import Uid
from lightning_chaos.replication.assignment import Assignment
from lightning_chaos.replication.image import Manifest, StateImage

_AHEAD_BYTES = 2_500_000
"""Asked of a donor at once: what 1 Gbit/s carries in 20 ms."""
_MAX_AHEAD_SHARDS = 32


@dataclass(frozen=True, slots=True)
class Goal:
    """The state to pull and how far it is."""

    manifest: Manifest
    buffer: memoryview
    assignment: Assignment
    kept_bytes: int
    """What the learner held already."""

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        held: StateImage | None,
        links: Sequence[DonorLink],
        uids: Sequence[Uid],
    ) -> Goal:
        """Take memory, keep what is there, plan the rest.

        Args:
            manifest: checked.
            held: the learner's own state, None if it has none of use.
            links: donors that serve this manifest or have not spoken yet, named by uid.
            uids: all donors.
        """
        # not zeroed, so that the event loop does not stand still while the pages are touched
        buffer = np.empty(manifest.total_bytes, np.uint8).data
        kept = _keep(manifest, held, buffer) if held is not None else set()
        missing = [index for index in range(manifest.shards) if index not in kept]
        planned: dict[Uid, list[int]] = {uid: [] for uid in uids}
        if missing:
            size = manifest.shard_bytes
            plan = plan_pull(len(missing) * size, size, links)
            for uid, (first, end) in plan.ranges.items():
                planned[uid] = missing[first:end]
        return cls(
            manifest=manifest,
            buffer=buffer,
            assignment=Assignment(planned),
            kept_bytes=sum(manifest.span(index)[1] for index in kept),
        )

    @property
    def ahead(self) -> int:
        """Shards asked of a donor at once."""
        return max(2, min(-(-_AHEAD_BYTES // self.manifest.shard_bytes) + 1, _MAX_AHEAD_SHARDS))


def _keep(manifest: Manifest, held: StateImage, buffer: memoryview) -> set[int]:
    """Copy the shards that the learner holds already; returns their indices."""
    if held.manifest.shard_bytes != manifest.shard_bytes:
        return set()
    both = zip(held.manifest.digests, manifest.digests, strict=False)
    kept = {index for index, (mine, theirs) in enumerate(both) if mine == theirs}
    for index in kept:
        at, length = manifest.span(index)
        for view in held.read(at, length):
            buffer[at : at + len(view)] = view
            at += len(view)
    return kept
