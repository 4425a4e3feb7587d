"""What a learner and a donor say to each other on a SHARDS connection.

Each message is four bytes of length and a tagged MessagePack array; after :class:`Shard` come the
bytes of that shard, raw, and after :class:`Train` some that mean nothing.

    learner                              donor
    Ask ───────────────────────────────►
        ◄──── Train + bytes, NotYet … NotYet, ManifestReply (or Refuse)
    WantLocal, Want, Want … ───────────►
        ◄──────────── LocalReply, Shard + bytes, Shard + bytes …

Wants are answered in order; several may be under way.  A newcomer that pulls the same state is
called like a donor, and sends shards unasked, as they come.  Whoever has had enough closes.
"""

from __future__ import annotations

import msgspec

from lightning_chaos.errors import WireError
from lightning_chaos.protocol.values import Uid
from lightning_chaos.replication.image import Manifest


class Pull(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages between learner and donor."""


class Ask(Pull, frozen=True, array_like=True, tag=True):
    """First message of the learner: whose state it wants, and as who."""

    run: str
    learner: Uid


class NotYet(Pull, frozen=True, array_like=True, tag=True):
    """The donor's image is not there yet; said again and again so that silence means trouble."""


class Refuse(Pull, frozen=True, array_like=True, tag=True):
    """Why the donor serves no (more) shards; it closes after this."""

    reason: str
    final: bool = False
    """Nothing will change that: the learner need not come again."""


class Train(Pull, frozen=True, array_like=True, tag=True):
    """So many raw bytes follow, at once: how they arrive tells how fast the link is."""

    length: int


class ManifestReply(Pull, frozen=True, array_like=True, tag=True):
    """What the donor serves."""

    manifest: Manifest


class WantLocal(Pull, frozen=True, array_like=True, tag=True):
    """The learner wants the donor's local part."""


class LocalReply(Pull, frozen=True, array_like=True, tag=True):
    """The donor's local part."""

    blob: bytes


class Want(Pull, frozen=True, array_like=True, tag=True):
    """The learner wants this shard."""

    index: int


class Shard(Pull, frozen=True, array_like=True, tag=True):
    """So many raw bytes follow: that shard."""

    index: int
    length: int


AnyPull = Ask | NotYet | Refuse | Train | ManifestReply | WantLocal | LocalReply | Want | Shard

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyPull] = msgspec.msgpack.Decoder(AnyPull)


def encode_pull(message: Pull) -> bytes:
    """Bytes of a message, without framing."""
    return _encoder.encode(message)


def decode_pull(data: bytes | bytearray | memoryview) -> AnyPull:
    """The message in these bytes.

    Raises:
        WireError: not such a message.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(f"not a message between learner and donor: {error}") from error
