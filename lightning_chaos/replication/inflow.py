"""What the bytes of a SHARDS connection make: messages, shards, trains."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from lightning_chaos.errors import WireError
from lightning_chaos.replication.wire import AnyPull, Shard, Train, decode_pull
from lightning_chaos.transport.channel import MAX_MESSAGE_BYTES
from lightning_chaos.transport.train import TRAIN_BYTES, Arrival

HEAD_BYTES = 4
"""Length of a message, before it."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A whole shard; its bytes are valid until more are read."""

    index: int
    data: memoryview
    began_t: float
    """When it was announced, on the event loop's clock, seconds."""


@dataclass(frozen=True, slots=True)
class TrainSeen:
    """A whole train, as it came."""

    arrivals: tuple[Arrival, ...]


Heard = AnyPull | Arrived | TrainSeen


class _Stage(enum.Enum):
    HEAD = "length"
    BODY = "message"
    RAW = "shard"
    TRAIN = "train"


class Inflow:
    """Says where the next bytes go, and what is whole once they are there."""

    def __init__(self) -> None:
        self._shard_buffer = memoryview(b"")
        self._raw_index = 0
        self._raw_began_t = 0.0
        self._train: list[Arrival] = []
        self._turn(_Stage.HEAD, memoryview(bytearray(HEAD_BYTES)))

    def expect_shards(self, shard_bytes: int) -> None:
        """Take shards of up to so many bytes from now on; before this, a shard is an error."""
        self._shard_buffer = memoryview(bytearray(shard_bytes))

    @property
    def room(self) -> memoryview:
        """For the next bytes, never empty."""
        return self._target[self._filled :]

    @property
    def in_train(self) -> bool:
        """The next bytes are a train's."""
        return self._stage is _Stage.TRAIN

    @property
    def within(self) -> str:
        """What is not whole yet, '' between two messages."""
        return self._stage.value if self._stage is not _Stage.HEAD or self._filled else ""

    def took(self, size: int, read_t: float, came_t: float) -> Heard | None:
        """So many bytes are in the room now; returns what they make whole, if anything.

        Args:
            size: bytes.
            read_t: when they were read, on the event loop's clock, seconds.
            came_t: when the last of them had come, as well as that is known.

        Raises:
            WireError: malformed, or larger than allowed.
        """
        self._filled += size
        if self.in_train:
            self._train.append(Arrival(came_t, size))
        return self._whole(read_t) if self._filled == len(self._target) else None

    def _whole(self, now_t: float) -> Heard | None:
        item: Heard
        match self._stage:
            case _Stage.HEAD:
                length = int.from_bytes(self._target, "big")
                _check_length("message", length, MAX_MESSAGE_BYTES)
                self._turn(_Stage.BODY, memoryview(bytearray(length)))
                return None
            case _Stage.BODY:
                item = decode_pull(self._target)
                if self._announces(item, now_t):
                    return None
            case _Stage.RAW:
                item = Arrived(self._raw_index, self._target, self._raw_began_t)
            case _Stage.TRAIN:
                item = TrainSeen(tuple(self._train))
        self._turn(_Stage.HEAD, memoryview(bytearray(HEAD_BYTES)))
        return item

    def _announces(self, message: AnyPull, now_t: float) -> bool:
        """Raw bytes follow that message."""
        match message:
            case Shard(index, length):
                _check_length("shard", length, len(self._shard_buffer))
                self._raw_index, self._raw_began_t = index, now_t
                self._turn(_Stage.RAW, self._shard_buffer[:length])
            case Train(length):
                _check_length("train", length, TRAIN_BYTES)
                self._train = []
                self._turn(_Stage.TRAIN, memoryview(bytearray(length)))
            case _:
                return False
        return True

    def _turn(self, stage: _Stage, target: memoryview) -> None:
        self._stage = stage
        self._target = target
        self._filled = 0


def _check_length(what: str, length: int, most: int) -> None:
    if not 0 < length <= most:
        raise WireError(f"{what} of {length} bytes, allowed are {most}")
