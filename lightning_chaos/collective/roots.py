"""What a member does with the contributions that reach it: the root of a tree, or of a part of it.

Every member adds up its own vector and the sums of its children, in member order, and gives that
on as its contribution; the root divides.  Where all are the root's children, this is the sum in
member order.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from lightning_chaos.errors import WireError
from lightning_chaos.protocol.values import Uid

Floats = npt.NDArray[np.float32]

MARKED = 4096
"""Values of a result that enter its mark."""


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One member's contribution to the header of an operation."""

    label: str
    """Kind and call site of the operation, as this member began it."""
    vector_bytes: int
    """Size of its flat vector, 0 if it has none."""
    weight: float
    """Its weight in the sums."""
    blob: bytes
    """What the others are to get."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Part, ...])


def pack_parts(parts: Sequence[Part]) -> bytes:
    """Payload of a header's contribution or result: these members' parts, in member order."""
    return _encoder.encode(parts)


def unpack_parts(data: memoryview | bytes, members: int) -> tuple[Part, ...]:
    """The parts in the payload of a header's contribution or result, in member order.

    Raises:
        WireError: it is not that, or not of so many members.
    """
    try:
        parts = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"not parts of a header: {error}") from error
    if len(parts) != members:
        raise WireError(f"header of {len(parts)} members, contributors are {members}")
    return parts


def total_weight(parts: Sequence[Part]) -> float:
    """Of all these, added up in their order."""
    return sum((part.weight for part in parts), 0.0)


class Sum:
    """Adds float32 contributions in member order, whatever order they come in.

    Source: ``v_0 + v_1 + ...``, element by element in float32, where ``v_i`` is a vector already
    multiplied by its weight, or such a sum; the weights ``w_0 + w_1 + ...`` in float64.

    Args:
        givers: who contributes, in member order.
        into: receives the sum, shape ``(n,)``; holds partial sums until then.
    """

    def __init__(self, givers: tuple[Uid, ...], into: Floats) -> None:
        self._givers = givers
        self._into = into
        self._parts: dict[Uid, Floats] = {}
        self._weights: dict[Uid, float] = {}
        self._summed = 0

    def add(self, uid: Uid, part: Floats, weight: float) -> None:
        """Take in one contribution, shape ``(n,)``; it must stay unchanged until the end."""
        self._parts[uid] = part
        self._weights[uid] = weight
        while self._summed < len(self._givers):
            ready = self._parts.get(self._givers[self._summed])
            if ready is None:
                return
            if self._summed > 0:  # the first waits for the second: no copy is made of it
                before = self._parts[self._givers[0]] if self._summed == 1 else self._into
                np.add(before, ready, out=self._into)
            self._summed += 1

    @property
    def missing(self) -> tuple[Uid, ...]:
        """Members whose contribution has not come."""
        return tuple(uid for uid in self._givers if uid not in self._weights)

    @property
    def weight(self) -> float:
        """Of all that is in the sum; nothing may be missing."""
        return sum((self._weights[uid] for uid in self._givers), 0.0)

    def divide(self) -> None:
        """Make the sum the mean, dividing in float32; without weight, zeros."""
        if self.weight > 0:
            whole = self._into if len(self._givers) > 1 else self._parts[self._givers[0]]
            np.divide(whole, np.float32(self.weight), out=self._into)
        else:
            self._into.fill(0)


def mark_of(result: Floats) -> int:
    """Checksum of at most :data:`MARKED` values, evenly spread: cheap enough for every round."""
    step = -(-max(1, result.size) // MARKED)
    return zlib.crc32(result[::step].tobytes())


class Gather:
    """Collects the parts of a header.

    Args:
        brings: the ranks whose parts each member contributes, in order.
    """

    def __init__(self, brings: Mapping[Uid, tuple[int, ...]]) -> None:
        self._brings = brings
        self._parts: dict[int, Part] = {}

    def brings(self, uid: Uid) -> int:
        """How many parts that member contributes."""
        return len(self._brings[uid])

    def add(self, uid: Uid, parts: Sequence[Part]) -> None:
        """Take in one contribution."""
        self._parts.update(zip(self._brings[uid], parts, strict=True))

    @property
    def missing(self) -> tuple[Uid, ...]:
        """Members whose contribution has not come."""
        return tuple(uid for uid, ranks in self._brings.items() if ranks[0] not in self._parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that have come, in member order."""
        return tuple(self._parts[rank] for rank in sorted(self._parts))
