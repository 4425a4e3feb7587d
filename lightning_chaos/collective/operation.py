"""One operation at one member: what it gives, what it holds, and the attempt under way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lightning_chaos.collective.actions import Landing
from lightning_chaos.collective.attempt import Attempt, Space
from lightning_chaos.collective.frames import MAX_PAYLOAD_BYTES, Frame, FrameKind, tag_of
from lightning_chaos.collective.layout import HEADER, Chunk, Layout, Place, check_tiling
from lightning_chaos.collective.roots import Floats, Part, pack_parts, unpack_parts
from lightning_chaos.errors import ChaosError
from lightning_chaos.protocol.values import OpId, Uid, View


class Operation:
    """What one member gives to an operation and holds of it.

    It is *open* at first: buckets of the vector are given one by one (:meth:`give`), in any
    order; :meth:`close` gives the header and whatever is left.

    Args:
        op: its number.
        label: kind and call site; must be the same at all members.
        vector: flat float32, already multiplied by ``weight``; a bucket that is given stays
            unchanged until the operation is finished.
        weight: of this member in the sums.
        buckets: (offset, length) in bytes, tiling the vector.

    Raises:
        ChaosError: the weight is negative or not finite.
        ValueError: the buckets do not tile the vector, or it is not flat float32.
    """

    def __init__(
        self,
        op: OpId,
        label: str,
        vector: Floats | None,
        weight: float,
        buckets: Sequence[tuple[int, int]],
        space: Space,
    ) -> None:
        if not math.isfinite(weight) or weight < 0:
            raise ChaosError(f"weight {weight} of operation {op} must be finite and not negative")
        if vector is not None and (vector.dtype != np.float32 or vector.ndim != 1):
            raise ValueError(f"vector of {op} is {vector.dtype} {vector.shape}, not flat float32")
        size = 0 if vector is None else vector.nbytes
        check_tiling(buckets, size)
        widest = max((length for _, length in buckets), default=0)
        if widest > MAX_PAYLOAD_BYTES:
            raise ValueError(f"bucket of {widest} bytes, allowed are {MAX_PAYLOAD_BYTES}")
        self.op = op
        self.label = label
        self.tag = tag_of(label)
        self.vector_bytes = size
        self.weight = float(weight)
        self.buckets = tuple(buckets)
        self.closed_s = math.inf
        """When this member had given all to the attempt under way, seconds."""
        self.vector = vector
        self.result = None if vector is None else space.result(len(vector))
        self.header = memoryview(b"")
        """Payload of the header's result, once held."""
        self.parts: tuple[Part, ...] = ()
        """Everybody's part of the header, in member order, once held."""
        self.total: float | None = None
        """Total weight, once any result is held."""
        self.held: set[int] = set()
        """Chunks whose result is here, whole."""
        self.failed = False
        self._space = space
        self._own: Part | None = None
        self._packed = b""
        self._left = set(range(len(self.buckets)))
        self._attempt: Attempt | None = None

    # ---- giving ------------------------------------------------------------------------------

    @property
    def part(self) -> Part:
        """This member's part of the header (there is one once it is closed)."""
        assert self._own is not None
        return self._own

    @property
    def closed(self) -> bool:
        """This member has given all."""
        return self._own is not None

    def give(self, bucket: int) -> None:
        """That piece of the vector has its value.

        Raises:
            ValueError: there is no such bucket, or it was given before.
        """
        if bucket not in self._left:
            raise ValueError(f"bucket {bucket} of operation {self.op} is not there to give")
        self._left.remove(bucket)

    def close(self, blob: bytes, now_s: float) -> list[int]:
        """All buckets and the header have their values; returns the buckets not given before."""
        if self.closed:
            raise ValueError(f"operation {self.op} is closed already")
        self._own = Part(self.label, self.vector_bytes, self.weight, blob)
        self._packed = pack_parts((self._own,))
        self.closed_s = now_s
        rest, self._left = sorted(self._left), set()
        return rest

    def given(self) -> list[Chunk]:
        """The chunks of the present attempt to which this member can contribute."""
        return [chunk for chunk in self.attempt.layout.chunks if self.has_given(chunk)]

    def has_given(self, chunk: Chunk) -> bool:
        """This member's contribution to that chunk is there."""
        return self.closed if chunk.bucket is None else chunk.bucket not in self._left

    @property
    def attempt(self) -> Attempt:
        """The attempt under way (there is one from the first :meth:`afresh` on)."""
        assert self._attempt is not None
        return self._attempt

    @property
    def whole(self) -> bool:
        """Every result is here."""
        return len(self.held) == len(self.attempt.layout.chunks)

    # ---- attempts ----------------------------------------------------------------------------

    def afresh(self, me: Uid, view: View) -> None:
        """Begin, or begin again: drop all results, the members of this view contribute.

        Raises:
            ChaosError: the blob is too long for that many members.
        """
        self.check(len(view.members))
        self.held.clear()
        self.total = None
        layout = Layout.of(view.uids, view.plan, self.buckets)
        self._try(Attempt(me, view.epoch, view, layout))

    def check(self, members: int) -> None:
        """Make sure that the header of so many members can be sent.

        Raises:
            ChaosError: the blob is too long.
        """
        limit = _part_limit(members)
        if len(self._packed) > limit:
            raise ChaosError(
                f"{self.label} (operation {self.op}) gives {len(self._packed)} bytes; with "
                f"{members} members at most {limit} bytes fit. Gather less at once"
            )

    def again(self, me: Uid, epoch: int, passed: dict[int, Place]) -> None:
        """Go on with the same contributors: some chunks are passed on, some made anew.

        Results held of chunks that are not passed on are dropped.
        """
        before = self.attempt
        self.held &= passed.keys()
        if not self.held:
            self.total = None
        self._try(Attempt(me, epoch, before.origin, before.layout, passed))

    def _try(self, attempt: Attempt) -> None:
        if self._attempt is not None:
            self._attempt.void()
        attempt.prepare(self.result, self._space)
        self._attempt = attempt

    def release(self) -> None:
        """Let go of the contribution: no redo can need it any more."""
        self.vector = None
        self._packed = b""

    # ---- payloads ----------------------------------------------------------------------------

    def contribution(self, chunk: Chunk) -> memoryview:
        """What this member gives to a chunk."""
        if chunk.id == HEADER:
            return memoryview(self._packed)
        return chunk.of(self.vector).data.cast("B")

    def own(self, chunk: Chunk) -> Floats:
        """This member's floats of a chunk."""
        return chunk.of(self.vector)

    def outcome(self, chunk: Chunk) -> memoryview:
        """The result of a chunk that is held."""
        if chunk.id == HEADER:
            return self.header
        return chunk.of(self.result).data.cast("B")

    def hold_header(self, payload: memoryview) -> None:
        """The result of the header is here.

        Raises:
            WireError: it cannot be read.
        """
        self.parts = unpack_parts(payload, len(self.attempt.layout.members))
        self.header = payload

    # ---- frames in ---------------------------------------------------------------------------

    def surplus(self, sender: Uid, frame: Frame) -> bool:
        """A holder passes on what is here already: it cannot know who lacks it."""
        return (
            frame.kind is FrameKind.RESULT
            and frame.chunk in self.held
            and frame.chunk in self.attempt.passed
            and self.attempt.passed[frame.chunk].parent == sender
        )

    def fault(self, sender: Uid, frame: Frame) -> str | None:
        """Why no faithful member sends this frame in this attempt, None if one may."""
        attempt = self.attempt
        if frame.chunk >= len(attempt.layout.chunks):
            return f"{frame.kind.name} to chunk {frame.chunk} of {len(attempt.layout.chunks)}"
        chunk = attempt.layout.chunks[frame.chunk]
        if wrong := self._wrong(sender, chunk, frame):
            return f"{frame.kind.name} to chunk {chunk.id} of operation {self.op} {wrong}"
        return None

    def _wrong(self, sender: Uid, chunk: Chunk, frame: Frame) -> str | None:
        """The same of a frame to that chunk, without saying which."""
        attempt = self.attempt
        if not math.isfinite(frame.weight) or frame.weight < 0:
            return f"has weight {frame.weight}"
        place = attempt.place(chunk)
        if frame.kind is FrameKind.RESULT:
            if sender != place.parent:
                return f"must come from {place.parent or 'nobody'}"
            if chunk.id in attempt.sums or not self.has_given(chunk):
                return "came before this member contributed"
            twice = chunk.id in self.held or (sender, chunk.id) in attempt.coming
        else:
            if sender not in attempt.layout.members:
                return "comes from no contributor"
            if sender not in place.givers:
                return "is not this member's to add up"
            twice = (sender, chunk.id) in attempt.came
        return "came twice" if twice else self._misshapen(sender, chunk, frame)

    def _misshapen(self, sender: Uid, chunk: Chunk, frame: Frame) -> str | None:
        """Why that payload is not of the size of its chunk, None if it is."""
        if chunk.id == HEADER:
            layout, limit = self.attempt.layout, MAX_PAYLOAD_BYTES
            if frame.kind is FrameKind.CONTRIBUTION:
                limit = len(layout.below(chunk, sender)) * _part_limit(len(layout.members))
            shaped = frame.offset == 0 and 0 < frame.length <= limit
        else:
            shaped = (frame.offset, frame.length) == (chunk.offset, chunk.length)
        if shaped:
            return None
        return (
            f"has {frame.length} bytes at {frame.offset}, "
            f"expected are {chunk.length} at {chunk.offset}"
        )

    def land(self, sender: Uid, frame: Frame) -> Landing:
        """Where the payload of a faultless frame goes."""
        attempt = self.attempt
        chunk = attempt.layout.chunks[frame.chunk]
        if chunk.id == HEADER:
            memory = memoryview(bytearray(frame.length))
        elif frame.kind is FrameKind.RESULT:
            memory = chunk.of(self.result).data.cast("B")
        else:
            end = attempt.landed + frame.length
            memory = attempt.landing[attempt.landed : end].data
            attempt.landed = end
        landing = Landing(memory)
        attempt.coming[sender, chunk.id] = landing
        if frame.kind is FrameKind.CONTRIBUTION:
            attempt.came.add((sender, chunk.id))
        return landing


def _part_limit(members: int) -> int:
    """Longest part of a header, bytes, so that those of all members fit into one result."""
    return MAX_PAYLOAD_BYTES // members - 64
