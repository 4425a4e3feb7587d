"""What every member says in chunk 0 of a round (design §6)."""

from __future__ import annotations

import msgspec

from lightning_chaos.data.ledger import Slice
from lightning_chaos.errors import WireError
from lightning_chaos.protocol.ranges import Seconds


class RoundHeader(msgspec.Struct, frozen=True, array_like=True):
    """One member's part; its weight travels with the operation itself."""

    slices: Slice
    """Positions of the samples behind its contribution: the ledger commits exactly these."""
    used: bytes
    """Bitmap of parameters with a gradient that counts."""
    buffers: bytes
    """Bitmap of float buffers that changed and are not active yet."""
    values: bytes
    """The active buffers themselves, where the oldest member's count."""
    stop: bool
    """This member was asked to end the run: all stop after this round."""
    loss: float | None
    """Mean training loss of its samples, None without any."""
    busy_s: Seconds
    """For how long it has computed in this round, without its waits for others, seconds."""
    digest: bytes = b""
    """Of the segment of its state whose turn it was when the round began, if one's it was."""


_decoder = msgspec.msgpack.Decoder(RoundHeader)


def encode_header(header: RoundHeader) -> bytes:
    """Bytes of a header."""
    return msgspec.msgpack.encode(header)


def decode_header(data: bytes) -> RoundHeader:
    """The header in these bytes.

    Raises:
        WireError: it is none.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise WireError(f"not the header of a round: {error}") from error
