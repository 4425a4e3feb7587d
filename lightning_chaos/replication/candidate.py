"""A donor as a pull sees it, and which state most of them have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_chaos.protocol.values import Uid
from lightning_chaos.replication.gauge import Gauge
from lightning_chaos.replication.image import Manifest
from lightning_chaos.replication.values import DonorShare, Source


@dataclass(slots=True)
class Candidate:
    """A donor during the pull."""

    source: Source
    share: DonorShare
    gauge: Gauge
    fellow: bool = False
    """It is another newcomer, and passes on what it pulls itself."""
    manifest: Manifest | None = None
    out: bool = False
    declined: bool = False
    wrong_shards: int = 0
    certain: bool = False
    """A plan was made with the rate that its transfer has shown for good."""

    @classmethod
    def of(cls, source: Source, *, fellow: bool = False) -> Candidate:
        """Before anything was heard of it."""
        share = DonorShare(source.uid, source.name)
        return cls(source, share, Gauge(source.rate_bytes_per_s), fellow)

    def gave(self, size: int, began_s: float, now_s: float) -> None:
        """A shard of so many bytes was taken.

        Args:
            size: bytes.
            began_s: when it began to come, seconds since the pull began.
            now_s: the present, likewise.
        """
        share = self.share
        share.bytes += size
        share.shards += 1
        if share.first_s is None:
            share.first_s = began_s
        share.last_s = now_s

    def told(self) -> DonorShare:
        """What it gave, with what is known of its link in the end."""
        gauge, share = self.gauge, self.share
        share.train_bytes_per_s = gauge.train.bytes_per_s if gauge.train else None
        share.measured = gauge.live.estimate
        share.rtt_s = gauge.rtt_s or None
        return share


def choice_of(candidates: Sequence[Candidate], local_from: Uid) -> Manifest | None:
    """The manifest that more than half offer, or most once all have spoken; None before that.

    Args:
        candidates: all donors of the pull.
        local_from: its manifest counts if equally many offer two.
    """
    offered = [d for d in candidates if d.manifest is not None and not d.out]
    if not offered:
        return None
    votes = Counter(d.manifest for d in offered)
    # ties go to the donor of the local part, then to the first named
    offered.sort(key=lambda d: (-votes[d.manifest], d.source.uid != local_from))
    manifest = offered[0].manifest
    open_ballots = any(d.manifest is None and not d.out for d in candidates)
    if open_ballots and votes[manifest] * 2 <= len(candidates):
        return None
    return manifest
