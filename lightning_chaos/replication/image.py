"""The training state at the begin of a round, as one row of bytes cut into shards.

Byte space: ``[tensors, each at a multiple of 64 bytes | structure]``.  Tensors come first so
that a newcomer whose structure differs (counters, no optimizer state yet) still has the tensors
before at the same place and need not pull those that are equal.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from lightning_chaos.errors import StateError, WireError
from lightning_chaos.planning.pull import MAX_SHARD_BYTES, choose_shard_bytes
from lightning_chaos.protocol.values import OpId
from lightning_chaos.replication.tree import ALIGNMENT, Layout, pack, restore
from lightning_chaos.transport.channel import MAX_MESSAGE_BYTES

DIGEST_BYTES = 16
_ZEROS = memoryview(bytes(ALIGNMENT))


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """What an image consists of; equal at all donors whose shared state is bit-identical."""

    round: int
    """The state is the one at the begin of this round."""
    operation: OpId
    """Last operation that every donor had finished."""
    tensor_bytes: int
    """The structure begins here."""
    total_bytes: int
    shard_bytes: int
    """Bytes of every shard but the last, which may be shorter."""
    digests: tuple[bytes, ...]
    """First 16 bytes of the SHA-256 of each shard."""
    root: bytes
    """The same of the sizes and all digests."""

    @property
    def digest(self) -> str:
        """The shared state in 32 hex digits; round and operation do not enter."""
        return self.root.hex()

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.digests)

    def span(self, index: int) -> tuple[int, int]:
        """Offset and length of a shard, bytes."""
        offset = index * self.shard_bytes
        return offset, min(self.shard_bytes, self.total_bytes - offset)

    def check(self, max_bytes: int) -> None:
        """Refuse what makes no sense, before memory is taken for it.

        Args:
            max_bytes: largest state that may be pulled.

        Raises:
            WireError: sizes that contradict each other, or too large.
        """
        if not 0 < self.total_bytes <= max_bytes:
            raise WireError(f"a state of {self.total_bytes} bytes; at most {max_bytes} are taken")
        if not 0 <= self.tensor_bytes < self.total_bytes:
            raise WireError(f"tensors of {self.tensor_bytes} bytes in {self.total_bytes}")
        if not 0 < self.shard_bytes <= MAX_SHARD_BYTES:
            raise WireError(f"shards of {self.shard_bytes} bytes; at most {MAX_SHARD_BYTES}")
        if self.shards != -(-self.total_bytes // self.shard_bytes):
            raise WireError(
                f"{self.shards} shards of {self.shard_bytes} bytes are not {self.total_bytes}"
            )
        if any(len(d) != DIGEST_BYTES for d in self.digests):
            raise WireError(f"a digest is not {DIGEST_BYTES} bytes long")
        sizes = (self.tensor_bytes, self.total_bytes, self.shard_bytes)
        if self.root != _root(*sizes, self.digests):
            raise WireError("the manifest's root digest is not that of its shards")


class StateImage:
    """A member's state, ready to be served; shows live memory, so training must hold still.

    Attributes:
        manifest: sizes and digests of the shared part.
        local: the local part as a blob (see :func:`lightning_chaos.replication.tree.unpack`).
    """

    def __init__(
        self, manifest: Manifest, local: bytes, pieces: Iterable[tuple[int, memoryview]]
    ) -> None:
        """Use :meth:`of`; pieces are ``(offset, bytes)`` in order, gaps between them are zeros."""
        self.manifest = manifest
        self.local = local
        self._offsets: list[int] = []
        self._pieces: list[memoryview] = []
        end = 0
        for offset, data in pieces:
            if offset > end:
                self._offsets.append(end)
                self._pieces.append(_ZEROS[: offset - end])
            self._offsets.append(offset)
            self._pieces.append(data)
            end = offset + len(data)

    @classmethod
    def of(
        cls,
        shared: object,
        local: object,
        *,
        round: int,
        operation: OpId,
        shard_bytes: int | None = None,
    ) -> StateImage:
        """Lay out a state without copying its CPU tensors, and digest it.

        Args:
            shared: what all members have alike; covered by the digest.
            local: what is each member's own (RNG, say); small.
            round: the round that has not begun yet.
            operation: last operation finished.
            shard_bytes: None for :func:`~lightning_chaos.planning.pull.choose_shard_bytes`.

        Raises:
            StateError: a value of a type that cannot travel (the message names its path), or a
                local part too large for one message.
        """
        layout = Layout(shared)
        blob = pack(local, "local")
        if len(blob) > MAX_MESSAGE_BYTES // 2:
            raise StateError(
                f"the local part of the state has {len(blob)} bytes; at most "
                f"{MAX_MESSAGE_BYTES // 2} are allowed. Large tensors belong to the shared part"
            )
        pieces = [*layout.pieces, (layout.tensor_bytes, memoryview(layout.structure))]
        total = layout.tensor_bytes + len(layout.structure)
        size = shard_bytes or choose_shard_bytes(total)
        # spans and reads are needed to digest, digests to complete the manifest
        bare = Manifest(round, operation, layout.tensor_bytes, total, size, (), b"")
        image = cls(bare, blob, pieces)
        digests = tuple(
            digest_of(*image.read(*bare.span(index))) for index in range(-(-total // size))
        )
        image.manifest = msgspec.structs.replace(
            bare, digests=digests, root=_root(layout.tensor_bytes, total, size, digests)
        )
        return image

    @property
    def digest(self) -> str:
        """The shared state in 32 hex digits, equal where the state is bit-identical."""
        return self.manifest.digest

    def read(self, offset: int, length: int) -> list[memoryview]:
        """Views that together are ``length`` bytes of the byte space from ``offset`` on."""
        if offset < 0 or length < 0 or offset + length > self.manifest.total_bytes:
            raise StateError(f"bytes {offset}..{offset + length} of {self.manifest.total_bytes}")
        views: list[memoryview] = []
        at, end = offset, offset + length
        i = bisect.bisect_right(self._offsets, offset) - 1
        while at < end:
            start = self._offsets[i]
            views.append(self._pieces[i][at - start : end - start])
            at += len(views[-1])
            i += 1
        return views


def check_sendable(shared: object, local: object) -> None:
    """Find out early whether a state could be served, without reading its tensors.

    Raises:
        StateError: a value of a type that cannot travel; the message names its path.
    """
    Layout(shared, only_look=True)
    pack(local, "local")


def assemble(manifest: Manifest, buffer: bytearray | memoryview) -> Any:
    """The shared tree in a pulled buffer; tensors are copies, the buffer may go.

    Raises:
        StateError: the buffer is not of the manifest's size, or its content is malformed.
    """
    view = memoryview(buffer)
    if len(view) != manifest.total_bytes:
        raise StateError(f"{len(view)} bytes for a state of {manifest.total_bytes}")
    return restore(view[manifest.tensor_bytes :], view[: manifest.tensor_bytes])


def digest_of(*views: memoryview) -> bytes:
    """Digest of a shard given in pieces; hashlib releases the GIL for all but tiny ones."""
    digest = hashlib.sha256()
    for view in views:
        digest.update(view)
    return digest.digest()[:DIGEST_BYTES]


def _root(tensor_bytes: int, total: int, shard_bytes: int, digests: tuple[bytes, ...]) -> bytes:
    digest = hashlib.sha256(
        b"".join(n.to_bytes(8, "big") for n in (tensor_bytes, total, shard_bytes))
    )
    digest.update(b"".join(digests))
    return digest.digest()[:DIGEST_BYTES]
