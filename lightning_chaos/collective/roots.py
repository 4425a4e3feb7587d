"""What the root of a chunk does with everybody's contributions."""

from __future__ import annotations

import zlib

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
_part_decoder = msgspec.msgpack.Decoder(Part)
_parts_decoder = msgspec.msgpack.Decoder(tuple[Part, ...])


def pack_part(part: Part) -> bytes:
    """Payload of a contribution to a header."""
    return _encoder.encode(part)


def unpack_part(data: memoryview) -> Part:
    """The contribution in this payload.

    Raises:
        WireError: it is none.
    """
    try:
        return _part_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"not a header's contribution: {error}") from error


def unpack_parts(data: memoryview | bytes, members: int) -> tuple[Part, ...]:
    """Everybody's contributions in the payload of a header's result, in member order.

    Raises:
        WireError: it is not that, or not of so many members.
    """
    try:
        parts = _parts_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"not a header's result: {error}") from error
    if len(parts) != members:
        raise WireError(f"header of {len(parts)} members, contributors are {members}")
    return parts


class Sum:
    """Adds float32 contributions in member order, whatever order they come in.

    Source: ``result = (v_0 + v_1 + ...) / (w_0 + w_1 + ...)`` where ``v_i`` is already
    multiplied by ``w_i``; the sum runs in float32 element by element, the weights in float64,
    the division in float32.  A total weight of zero gives zeros.

    Args:
        members: contributors, oldest first.
        into: receives the result, shape ``(n,)``; holds partial sums until then.
    """

    def __init__(self, members: tuple[Uid, ...], into: Floats) -> None:
        self._members = members
        self._into = into
        self._parts: dict[Uid, Floats] = {}
        self._weights: dict[Uid, float] = {}
        self._summed = 0

    def add(self, uid: Uid, part: Floats, weight: float) -> None:
        """Take in one contribution, shape ``(n,)``; it must stay unchanged until the end."""
        self._parts[uid] = part
        self._weights[uid] = weight
        while self._summed < len(self._members):
            ready = self._parts.get(self._members[self._summed])
            if ready is None:
                return
            if self._summed > 0:  # the first waits for the second: no copy is made of it
                before = self._parts[self._members[0]] if self._summed == 1 else self._into
                np.add(before, ready, out=self._into)
            self._summed += 1

    @property
    def missing(self) -> tuple[Uid, ...]:
        """Members whose contribution has not come."""
        return tuple(uid for uid in self._members if uid not in self._weights)

    def close(self) -> float:
        """Divide by the total weight, which is returned; nothing may be missing."""
        total = sum((self._weights[uid] for uid in self._members), 0.0)
        if total > 0:
            whole = self._into if len(self._members) > 1 else self._parts[self._members[0]]
            np.divide(whole, np.float32(total), out=self._into)
        else:
            self._into.fill(0)
        return total


def mark_of(result: Floats) -> int:
    """Checksum of at most :data:`MARKED` values, evenly spread: cheap enough for every round."""
    step = -(-max(1, result.size) // MARKED)
    return zlib.crc32(result[::step].tobytes())


class Gather:
    """Collects the parts of a header."""

    def __init__(self, members: tuple[Uid, ...]) -> None:
        self._members = members
        self._parts: dict[Uid, Part] = {}

    def add(self, uid: Uid, part: Part) -> None:
        """Take in one contribution."""
        self._parts[uid] = part

    @property
    def missing(self) -> tuple[Uid, ...]:
        """Members whose contribution has not come."""
        return tuple(uid for uid in self._members if uid not in self._parts)

    def close(self) -> tuple[float, bytes]:
        """Total weight, and the payload for everybody; nothing may be missing."""
        parts = [self._parts[uid] for uid in self._members]
        return sum((part.weight for part in parts), 0.0), _encoder.encode(parts)
