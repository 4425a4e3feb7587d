"""Which samples of an epoch are committed, and who takes which next.

An epoch is a permutation of the dataset; the ledger speaks of *positions* in it, never of
samples.  Every function here is pure: members that hold the same ledger and the same view share
out the same slices, so nobody needs to send them around before the round.  A slice counts only
once the round's header has named it and :func:`commit` has taken it; the slice of a member that
died first stays uncommitted and is shared out again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from lightning_chaos.errors import DataError

Range = tuple[int, int]
"""Positions ``[start, stop)`` of the epoch's permutation."""

Slice = tuple[Range, ...]
"""What one member takes in one round: ascending ranges, empty if nothing is left for it."""


class Ledger(msgspec.Struct, frozen=True):
    """The committed part of one epoch."""

    seed: int
    """Of the run's permutations."""
    epoch: int
    """Data epoch, from 0; with :attr:`seed` it names the permutation."""
    size: int
    """Samples in the dataset."""
    committed: tuple[Range, ...] = ()
    """Positions that stable rounds have used: ascending, disjoint, merged."""

    @property
    def left(self) -> int:
        """Positions not yet committed."""
        return self.size - sum(stop - start for start, stop in self.committed)


class MicroBatch(msgspec.Struct, frozen=True):
    """What one member runs forward and backward at once."""

    positions: tuple[int, ...]
    """Positions of the samples; those of an idle micro-batch are stand-ins."""
    weight: int
    """Samples that count: all of them, or none if they are stand-ins."""

    @property
    def is_idle(self) -> bool:
        """Run only to keep step with the others; never committed."""
        return self.weight == 0


def share_out(
    ledger: Ledger, shares: Sequence[int], *, drop_last: bool = False
) -> tuple[Slice, ...]:
    """The slices of the next round, one per member, oldest member first.

    The lowest uncommitted positions, to each as many as its share.  What is left at the end of an
    epoch is shared out in proportion, rounded in favour of larger shares and older members.  If
    that would leave single samples, those at the other end get none and the others more; the last
    sample of an epoch has one of the round before for company.  BatchNorm refuses to train on one.

    Args:
        ledger: What is committed before this round.
        shares: Samples that each member takes in a round, at least one.
        drop_last: Share out nothing once not everybody can have all of its share.
    """
    left = ledger.left
    if left >= sum(shares):
        sizes = list(shares)
        if left == sum(shares) + 1 and not drop_last and max(shares) > 2:
            sizes[sizes.index(max(shares))] -= 1
    elif drop_last or not left:
        sizes = [0] * len(shares)
    else:
        sizes = _in_proportion(left, shares)
    return tuple(_cut(_uncommitted(ledger), sizes))


def _in_proportion(left: int, shares: Sequence[int]) -> list[int]:
    """So many samples, fewer than the shares' sum, in parts of two or more if that can be."""
    takers = sorted(range(len(shares)), key=lambda rank: (-shares[rank], rank))
    while True:
        total = sum(shares[rank] for rank in takers)
        sizes = [0] * len(shares)
        for rank in takers:
            sizes[rank] = left * shares[rank] // total
        # Stable: of equal remainders the larger share's and the older member's come first.
        by_rest = sorted(takers, key=lambda rank: -(left * shares[rank] % total))
        for rank in by_rest[: left - sum(sizes)]:
            sizes[rank] += 1
        if min(sizes[rank] for rank in takers) >= 2 or total - shares[takers[-1]] < left:
            return sizes
        takers.pop()


def commit(ledger: Ledger, slices: Iterable[Slice]) -> Ledger:
    """The ledger after a round that used these slices.

    Raises:
        DataError: A range is empty, outside the dataset or committed twice; nothing is taken.
    """
    ranges = sorted([*ledger.committed, *(r for one in slices for r in one)])
    merged: list[Range] = []
    for start, stop in ranges:
        where = f"positions {start}..{stop} of epoch {ledger.epoch}"
        if not 0 <= start < stop <= ledger.size:
            raise DataError(
                f"{where} are not a part of a dataset of {ledger.size} samples: "
                "the members do not train on the same data"
            )
        if merged and start < merged[-1][1]:
            raise DataError(
                f"{where} would count twice: they overlap {merged[-1][0]}..{merged[-1][1]}"
            )
        if merged and start == merged[-1][1]:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return msgspec.structs.replace(ledger, committed=tuple(merged))


def rounds_left(ledger: Ledger, shares: Sequence[int], *, drop_last: bool = False) -> int:
    """Rounds until the epoch ends, if nobody comes or goes, no share changes, no slice is lost.

    Arguments are those of :func:`share_out`.
    """
    full, rest = divmod(ledger.left, sum(shares))
    return full if drop_last or rest == 0 else full + 1


def samples_in(share: Slice) -> int:
    """Samples in a slice."""
    return sum(stop - start for start, stop in share)


def positions(share: Slice) -> list[int]:
    """The positions of a slice one by one, ascending."""
    return [position for start, stop in share for position in range(start, stop)]


def micro_batches(
    share: Sequence[int], micro: int, count: int, size: int
) -> tuple[MicroBatch, ...]:
    """Cut a member's positions into the micro-batches that every member runs in this round.

    A member with fewer positions than micro-batches fills up with idle ones: BatchNorm and the
    lock step want its forward and backward passes too.  Idle ones hold two stand-ins where they
    may, because BatchNorm refuses to train on a single sample.

    Args:
        share: The member's positions, at most ``micro * count``.
        micro: Most samples in a micro-batch.
        count: Micro-batches of the round, the same for all members.
        size: Samples in the dataset; not zero.

    Raises:
        DataError: The positions do not fit.
    """
    if len(share) > micro * count:
        raise DataError(
            f"{len(share)} samples do not fit {count} micro-batches of {micro}: "
            "the members do not agree on batch size or accumulation"
        )
    stand_ins = tuple(range(min(2, micro, size)))
    used = min(count, _parts(len(share), micro))
    each, more = divmod(len(share), used) if used else (0, 0)
    batches: list[MicroBatch] = []
    begin = 0
    for i in range(count):
        end = begin + each + (i < more) if i < used else begin
        own = tuple(share[begin:end])
        batches.append(MicroBatch(positions=own or stand_ins, weight=len(own)))
        begin = end
    return tuple(batches)


def _parts(samples: int, most: int) -> int:
    """How many parts to cut so many samples into, each of at most ``most``.

    No part of a single sample if that can be: BatchNorm refuses to train on one.
    """
    return max(1, samples // 2, -(-samples // most))


def _uncommitted(ledger: Ledger) -> Iterator[Range]:
    begin = 0
    for start, stop in ledger.committed:
        if begin < start:
            yield begin, start
        begin = stop
    if begin < ledger.size:
        yield begin, ledger.size


def _cut(ranges: Iterator[Range], sizes: Iterable[int]) -> Iterator[Slice]:
    """Consecutive slices of these sizes; the ranges hold enough for all of them."""
    start = stop = 0
    for size in sizes:
        share: list[Range] = []
        while size:
            if start == stop:
                start, stop = next(ranges)
            end = min(stop, start + size)
            share.append((start, end))
            size -= end - start
            start = end
        yield tuple(share)
