"""What one node knows of one of its links, and how well (design §5)."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec


class Trust(enum.IntEnum):
    """What a rate was learned from."""

    NOTHING = 0
    """There is none."""
    AT_LEAST = 1
    """Too little was seen: a lower bound, which says nothing against the link."""
    TRAIN = 2
    """Short trains over a link that no transfer has shown yet: a guess."""
    MEASURED = 3
    """Transfers, or trains over a link where they agreed with transfers."""


FRESH_S = 128.0
"""So long a figure counts in full, seconds; from then on less, as the inverse of its age."""
_OF_TRAIN = 0.5
_LEAST = 0.2


class Reading(msgspec.Struct, frozen=True, array_like=True):
    """A rate, with where it comes from."""

    bytes_per_s: Annotated[float, msgspec.Meta(ge=0)]
    trust: Trust = Trust.MEASURED
    age_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Since it was measured, seconds."""


def confidence(trust: Trust, age_s: float) -> float:
    """Trust in a rate, 0..1: 1 for a fresh transfer, 0 for a lower bound or what is forgotten.

    Args:
        trust: what it was learned from.
        age_s: since then, seconds.
    """
    if trust < Trust.TRAIN:
        return 0.0
    faded = (_OF_TRAIN if trust is Trust.TRAIN else 1.0) * min(1.0, FRESH_S / max(age_s, FRESH_S))
    return faded if faded >= _LEAST else 0.0
