"""What goes into a pull and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_chaos.protocol.values import Uid
from lightning_chaos.replication.image import Manifest
from lightning_chaos.replication.shelf import Shelf
from lightning_chaos.transport.address import Address
from lightning_chaos.transport.rate import RateEstimate


@dataclass(frozen=True, slots=True)
class Source:
    """A donor as the view names it, and what is known of the link to it."""

    uid: Uid
    name: str
    address: Address
    rate_bytes_per_s: float | None = None
    """Remembered from an earlier transfer, bytes/s; None if there was none."""


@dataclass(frozen=True, slots=True)
class Company:
    """Other newcomers that pull the same state at the same time."""

    rank: int
    """Of this one among all of them: each of them counts alike."""
    fellows: tuple[Source, ...]
    shelf: Shelf
    """What this one passes on to them."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is, after every shard."""

    bytes: int
    total: int
    """Bytes to pull; what was kept is not among them."""
    per_donor: dict[str, int]
    """Bytes taken, by donor name."""


@dataclass(slots=True)
class DonorShare:
    """What one donor gave."""

    uid: Uid
    name: str
    bytes: int = 0
    shards: int = 0
    first_s: float | None = None
    """When its first shard taken began to come, seconds since the pull began; None: none did."""
    last_s: float | None = None
    """When the last shard taken from it was there, seconds since the pull began."""
    planned_bytes: int | None = 0
    """What the plan gave to it: the last plan, and what it had given before that; None if another
    newcomer may bring some of it."""
    planned_bytes_per_s: float | None = None
    """Rate that the last plan counted on; None if there was no plan, or it knew no rate at all."""
    train_bytes_per_s: float | None = None
    """What its packet train said of the link, None if nothing."""
    measured: RateEstimate | None = None
    """What the transfer showed of the link, None if nothing came."""
    rtt_s: float | None = None
    """Round trip, seconds; None if it was never reached."""
    problem: str = ""
    """Why it took no (further) part, '' if it served to the end."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """The whole state."""

    manifest: Manifest
    buffer: memoryview
    """The shared part; :func:`lightning_chaos.replication.image.assemble` makes it a tree."""
    local: object
    """The local part of one donor, as a tree."""
    donors: tuple[DonorShare, ...]
    seconds: float
    kept_bytes: int
    """What the learner held already and did not pull."""
    planned_s: float
    """When the last plan was made, seconds since the pull began."""
    predicted_s: float | None
    """When the last plan expected the last shard, seconds since the pull began; None if it knew no
    rate, or if other newcomers pulled at the same time."""
