"""Which state a checkpoint holds, and which rounds came after it (design §4, lineage)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lightning_chaos.errors import StateError
from lightning_chaos.monitor.runlog import last_rounds
from lightning_chaos.protocol.values import Past

KEY = "lightning_chaos"
"""Where a checkpoint tells its lineage."""


class Lineage(msgspec.Struct, frozen=True):
    """Names the state in a checkpoint."""

    run: str
    generation: int
    """Restarts of the run from a checkpoint until then."""
    epoch: int
    """Of the view under which it was written."""
    samples: int
    """Committed until then, in all generations that led there."""
    rounds: int
    """The same in rounds."""


def stamp(checkpoint: dict[str, Any], lineage: Lineage) -> None:
    """Let the checkpoint tell its lineage."""
    checkpoint[KEY] = msgspec.to_builtins(lineage)


def past_of(checkpoint: Mapping[str, Any] | None, run: str, log_dir: str) -> Past:
    """What a node with this checkpoint and these logs brings of the run's past.

    A checkpoint of another run, or of no run of ours, is older than any of this run's; among
    such ones the number of steps decides.

    Args:
        checkpoint: as it was saved; None without one.
        run: id of the run.
        log_dir: directory of its logs on this machine, '' for none.

    Raises:
        StateError: the checkpoint tells its lineage in a way that is not understood.
    """
    told = max(_told(log_dir, run), default=(-1, 0))
    if checkpoint is None:
        return Past(told=told)
    lineage = _lineage_of(checkpoint)
    if lineage is None or lineage.run != run:
        return Past(0, 0, int(checkpoint.get("global_step", 0)), told)
    return Past(lineage.generation, lineage.samples, lineage.rounds, told)


def _lineage_of(checkpoint: Mapping[str, Any]) -> Lineage | None:
    if KEY not in checkpoint:
        return None
    try:
        return msgspec.convert(checkpoint[KEY], Lineage)
    except msgspec.ValidationError as error:
        raise StateError(
            f"the checkpoint's lineage (its {KEY!r}) is not understood: {error}. It is of another "
            "version of lightning-chaos; go on from another checkpoint"
        ) from None


def _told(log_dir: str, run: str) -> list[tuple[int, int]]:
    rounds = last_rounds(Path(log_dir), run) if log_dir else []
    return [(int(e["generation"]), int(e["trained"])) for e in rounds]


def lost_rounds(past: Past, told: tuple[int, int]) -> int | None:
    """How many rounds came after the checkpoint, as far as any candidate's run logs tell.

    Args:
        past: of the node that founds.
        told: generation and rounds of the last round that is known.

    Returns:
        None where no log tells of a round of the checkpoint's generation or a later one.
    """
    generation, rounds = told
    return max(0, rounds - past.rounds) if generation >= past.generation else None
