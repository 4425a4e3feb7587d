"""What travels on a data link: a greeting each way, then frames.

A frame is a header of fixed size and ``length`` bytes of payload.  All numbers are big endian::

    magic u8 | kind u8 | 0 u16 | tag u32 | epoch u64 | round i64 | k u32 | chunk u32
    | offset u64 | length u64 | weight f64
"""

from __future__ import annotations

import enum
import struct
import zlib

import msgspec

from lightning_chaos.errors import WireError
from lightning_chaos.protocol.values import PROTOCOL_VERSION, OpId, Uid

MAGIC = 0xC5
MAX_PAYLOAD_BYTES = 256 << 20
"""Nothing longer is taken: checked before memory is."""

MAX_GREETING_BYTES = 4096
GREETING_LENGTH = struct.Struct("!H")


class FrameKind(enum.IntEnum):
    """Which way a frame goes."""

    CONTRIBUTION = 1
    """From a member to the root of a chunk."""
    RESULT = 2
    """From the root (or, after a failure, a holder) to a member."""
    ASK = 3
    """For a train of ``offset`` bytes; no payload, belongs to no operation."""
    TRAIN = 4
    """Bytes that only measure the link; belongs to no operation."""


class Frame(msgspec.Struct, frozen=True):
    """Header of a frame."""

    kind: FrameKind
    tag: int
    """Checksum of the operation's label: tells another operation from a wrong shape."""
    epoch: int
    """View under which the sender runs the operation."""
    op: OpId
    chunk: int
    offset: int
    """First byte of the chunk in the flat vector."""
    length: int
    """Bytes of payload."""
    weight: float
    """Of the sender in a contribution, of all contributors in a result."""


_HEADER = struct.Struct("!BBHIQqIIQQd")
FRAME_BYTES = _HEADER.size


def tag_of(label: str) -> int:
    """The tag of frames of an operation with that label."""
    return zlib.crc32(label.encode())


def pack(frame: Frame) -> bytes:
    """Bytes of a header."""
    return _HEADER.pack(
        MAGIC,
        frame.kind,
        0,
        frame.tag,
        frame.epoch,
        frame.op.round,
        frame.op.k,
        frame.chunk,
        frame.offset,
        frame.length,
        frame.weight,
    )


def unpack(data: bytes | bytearray | memoryview) -> Frame:
    """The header in these :data:`FRAME_BYTES` bytes.

    Raises:
        WireError: not a header of ours, or the payload is longer than anyone may send.
    """
    magic, kind, zero, tag, epoch, round_, k, chunk, offset, length, weight = _HEADER.unpack(data)
    if magic != MAGIC or zero != 0:
        raise WireError(f"not a frame (it begins with {bytes(data[:4])!r})")
    if length > MAX_PAYLOAD_BYTES:
        raise WireError(f"frame of {length} bytes, allowed are {MAX_PAYLOAD_BYTES}")
    try:
        kind = FrameKind(kind)
    except ValueError:
        raise WireError(f"frame of unknown kind {kind}") from None
    return Frame(kind, tag, epoch, OpId(round_, k), chunk, offset, length, weight)


class Greeting(msgspec.Struct, frozen=True, array_like=True):
    """First bytes on a data connection, both ways."""

    version: int
    run: str
    sender: Uid
    to: Uid
    """Whom the sender means to speak to."""
    word: str | None = None
    """Instead of opening a link: the sender's incarnation votes no more, and why."""

    def refusal(self, me: Uid, run: str) -> str | None:
        """Why this greeting is not for me, or None if it is."""
        if self.version != PROTOCOL_VERSION:
            return f"protocol {self.version}, here it is {PROTOCOL_VERSION}"
        if self.run != run:
            return f"run {self.run!r}, here it is {run!r}"
        if self.to != me:
            return f"meant for {self.to}, here is {me}"
        if not self.sender or self.sender == me:
            return f"sender {self.sender!r} is nobody else"
        return None


_greeting_encoder = msgspec.msgpack.Encoder()
_greeting_decoder = msgspec.msgpack.Decoder(Greeting)


def pack_greeting(greeting: Greeting) -> bytes:
    """Two bytes of length and the greeting.

    Raises:
        WireError: longer than :data:`MAX_GREETING_BYTES`.
    """
    data = _greeting_encoder.encode(greeting)
    if len(data) > MAX_GREETING_BYTES:
        raise WireError(f"greeting of {len(data)} bytes, allowed are {MAX_GREETING_BYTES}")
    return GREETING_LENGTH.pack(len(data)) + data


def greeting_length(data: bytes | bytearray | memoryview) -> int:
    """How many bytes of greeting follow.

    Raises:
        WireError: none, or more than :data:`MAX_GREETING_BYTES`.
    """
    length: int = GREETING_LENGTH.unpack(data)[0]
    if not 0 < length <= MAX_GREETING_BYTES:
        raise WireError(f"greeting of {length} bytes, allowed are {MAX_GREETING_BYTES}")
    return length


def unpack_greeting(data: bytes | bytearray | memoryview) -> Greeting:
    """The greeting in these bytes.

    Raises:
        WireError: it is none.
    """
    try:
        return _greeting_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"not a greeting: {error}") from error
