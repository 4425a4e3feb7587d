"""What the numbers of messages may be: decoding refuses all others."""

from __future__ import annotations

import sys
from typing import Annotated

from msgspec import Meta

MOST_IN_VIEW = 4096
"""So many members a view can have, and a list of them on the wire."""
MOST_HOPS = 16
"""A message that has passed so many is dropped: views differ while they change."""
MOST_MBIT = 10**9
"""That a network card may say."""
_MOST = 1 << 62
"""No number that is told is larger: what is counted on from it still fits in 64 bits."""

Count = Annotated[int, Meta(ge=0, le=_MOST)]
Round = Annotated[int, Meta(ge=-1, le=_MOST)]
"""-1: before the first one."""
Chunk = Annotated[int, Meta(ge=0, lt=1 << 32)]
"""As in the header of a frame."""
Hops = Annotated[int, Meta(ge=1, le=MOST_HOPS)]
Seconds = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
"""Neither negative nor endless, and a number."""
Micros = Annotated[int, Meta(ge=0, lt=1 << 32)]
"""Microseconds, modulo 2³²."""
Percent = Annotated[int, Meta(ge=0, le=100)]
Step = Annotated[int, Meta(ge=0, le=255)]
"""A measured figure on a scale of ratios (:mod:`.scales`), 0 if it is not known."""
Mbit = Annotated[int, Meta(ge=0, le=MOST_MBIT)]
