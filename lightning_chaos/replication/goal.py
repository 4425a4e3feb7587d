"""What a learner pulls, once it is known which state most donors have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_chaos.errors import StateDeclined
from lightning_chaos.protocol.values import Uid
from lightning_chaos.replication.assignment import Assignment
from lightning_chaos.replication.image import Manifest, StateImage

_AHEAD_BYTES = 2_500_000
"""Asked at once of a donor of whose link nothing is known: what 1 Gbit/s carries in 20 ms."""
_AHEAD_S = 0.05
_AHEAD_ROUND_TRIPS = 1.5
"""Of others: what they send in these two. More is lost with a donor that is slower than believed;
with less a link idles when one of its ends is busy for a moment."""
_MAX_AHEAD_SHARDS = 128


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
        uids: Sequence[Uid],
    ) -> Goal:
        """Take memory and keep what is there; the rest is to be planned.

        Args:
            manifest: checked.
            held: the learner's own state, None if it has none of use.
            uids: all donors; until there is a plan, all is the first one's.

        Raises:
            StateDeclined: this machine has not got so much.
        """
        try:
            # not zeroed, so that the event loop does not stand still while the pages are touched
            buffer = np.empty(manifest.total_bytes, np.uint8).data
        except MemoryError:
            raise StateDeclined(
                f"the state has {manifest.total_bytes / 1e9:.1f} GB, for which this machine has "
                "not memory enough: it is held twice while a node joins"
            ) from None
        kept = _keep(manifest, held, buffer) if held is not None else set()
        missing = [index for index in range(manifest.shards) if index not in kept]
        planned: dict[Uid, list[int]] = {uid: [] for uid in uids}
        planned[uids[0]] = missing
        return cls(
            manifest=manifest,
            buffer=buffer,
            assignment=Assignment(planned),
            kept_bytes=sum(manifest.span(index)[1] for index in kept),
        )

    def ahead(self, rate_bytes_per_s: float | None, rtt_s: float) -> int:
        """Shards asked of a donor at once: few, for what is asked cannot be taken by another.

        Args:
            rate_bytes_per_s: of the link, None if it is not known.
            rtt_s: its round trip, seconds.
        """
        size = _AHEAD_BYTES
        if rate_bytes_per_s is not None:
            size = math.ceil(rate_bytes_per_s * (_AHEAD_ROUND_TRIPS * rtt_s + _AHEAD_S))
        return max(2, min(-(-size // self.manifest.shard_bytes) + 1, _MAX_AHEAD_SHARDS))


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
