"""Which of several members' digests of one thing is the right one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lightning_chaos.protocol.values import Uid


@dataclass(frozen=True, slots=True)
class Ruling:
    """Who has what is right and who has not; who told no digest is neither."""

    right: tuple[Uid, ...]
    """Oldest first."""
    wrong: tuple[Uid, ...]
    """Oldest first; empty where all are equal."""


def rule(members: Sequence[Uid], digests: Sequence[bytes], trusted: Collection[Uid] = ()) -> Ruling:
    """The digest that most members have is right, of two as frequent the oldest member's.

    Args:
        members: oldest first.
        digests: theirs, in the same order; b"" of one that told none.
        trusted: only these have a vote, if any of them told a digest: they were right about a
            part of it.
    """
    told = [(uid, digest) for uid, digest in zip(members, digests, strict=True) if digest]
    voters = [digest for uid, digest in told if uid in trusted] or [digest for _, digest in told]
    votes = Counter(voters)
    best = max(voters, key=lambda digest: votes[digest], default=b"")  # the first of equal ones
    return Ruling(
        right=tuple(uid for uid, digest in told if digest == best),
        wrong=tuple(uid for uid, digest in told if digest != best),
    )
