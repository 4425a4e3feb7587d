"""Members that come to differ are found by rolling digests and corrected (design §6).

All apply the same mean, but not with the same bits where their kernels differ (another CPU, another
device), and memory may fail.  Every so many rounds each member digests one segment of its state, in
turn, and says it in the round's header.  If not all are equal, the whole states are compared
before the next round, and who differs pulls from the others what differs.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from lightning_chaos.errors import StateError
from lightning_chaos.protocol.values import Uid
from lightning_chaos.replication.image import StateImage, assemble
from lightning_chaos.replication.majority import rule
from lightning_chaos.replication.segments import Segments
from lightning_chaos.replication.values import Pulled
from lightning_chaos.skin.origin import platform_of
from lightning_chaos.skin.rounds import Rounds
from lightning_chaos.worker.settlement import Settled
from lightning_chaos.worker.turns import Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Look:
    """The segment whose digest this member has told for the present round."""

    index: int
    of: int
    name: str


class Drift(Rounds):
    """Checks the state between two rounds, and makes the members' states equal again."""

    def __init__(self, **lightning: Any) -> None:
        super().__init__(**lightning)
        self._digest = b""
        self._look = _Look(0, 0, "")
        self._right: tuple[Uid, ...] = ()
        """Members that were right about the segment in which others were found to differ."""
        self._equal_at: dict[tuple[int, int], int] = {}
        """Round in which the segment ``(index, of)`` was last equal at all members."""
        self._known: set[Uid] = set()
        """Members found to differ before."""

    @override
    def _begin_round(self) -> tuple[tuple[Uid, ...], int]:
        if self._right:
            self._settle()
        place = super()._begin_round()
        self._digest = self._digest_segment() if self._due else b""
        return place

    @override
    def take_over(self, shared: Any, local: Any) -> None:
        """Also say so if this node computes otherwise than the member whose local part it has."""
        super().take_over(shared, local)
        ours, theirs = platform_of(self.root_device), local["platform"]
        unlike = [
            f"{name} {theirs.get(name)} there, {ours[name]} here"
            for name in ours
            if theirs.get(name) != ours[name]
        ]
        if unlike:
            self.node.log("unlike", differences=unlike)
            every = self.settings.verify_every
            what = f"corrected (verify_every={every})" if every else "kept (verify_every=0)"
            log.warning(
                "this node computes otherwise than the run's oldest (%s): its state will come to "
                "differ in last digits, which is %s",
                "; ".join(unlike),
                what,
            )

    # ---- finding ---------------------------------------------------------------------------

    @property
    def _due(self) -> bool:
        every = self.settings.verify_every
        together = self._world > 1 and self.node.in_step
        return together and every > 0 and self.node.round % every == 0

    def _digest_segment(self) -> bytes:
        """Digest of the segment whose turn it is."""
        segments = Segments(self._tensors_and_settings())
        index = (self.node.round // self.settings.verify_every) % len(segments)
        self._look = _Look(index, len(segments), segments.name(index))
        try:
            return segments.digest(index)
        except StateError as error:
            log.error("cannot check this state for drift: %s", error)
            return b""

    def _tensors_and_settings(self) -> dict[str, Any]:
        """What training changes, without the hooks that the whole state asks for a checkpoint."""
        assert self._samples is not None and self._reducer is not None
        trainer = self._trainer
        module = trainer.lightning_module
        own = self._own_buffers()
        return {
            "parameters": dict(module.named_parameters()),
            "buffers": {n: b for n, b in module.named_buffers() if n not in own},
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedulers": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
            "precision": self.precision_plugin.state_dict(),  # type: ignore[attr-defined]
            "samples": self._samples.state_dict(),
            "reducer": self._reducer.state_dict(),
        }

    def _own_buffers(self) -> frozenset[str]:
        """Names of the buffers that members need not have alike."""
        if self.settings.buffers != "local":
            return frozenset()
        buffers = self._trainer.lightning_module.named_buffers()
        return frozenset(name for name, buffer in buffers if buffer.is_floating_point())

    def _take_digest(self) -> bytes:
        """For the header of the round's first reduction."""
        digest, self._digest = self._digest, b""
        return digest

    def _compare(self, outcome: Outcome, digests: Sequence[bytes]) -> None:
        """All members' digests are here: remember who is right, for the time between rounds."""
        ruling = rule(outcome.view.uids, digests)
        look, round_ = self._look, outcome.op.round
        if not ruling.wrong:
            if ruling.right:
                self._equal_at[look.index, look.of] = round_
            return
        self._right = ruling.right
        equal_at = self._equal_at.get((look.index, look.of))
        self.node.log(
            "drift",
            round=round_,
            segment=look.index,
            segments=look.of,
            content=look.name,
            members=_names(ruling.wrong),
            equal_at=equal_at,
        )
        self._say(ruling.wrong, look, round_, equal_at)

    def _say(self, wrong: tuple[Uid, ...], look: _Look, round_: int, equal_at: int | None) -> None:
        """On the screen the first time; one whose kernels differ is found at every check."""
        level = logging.DEBUG if self._known.issuperset(wrong) else logging.WARNING
        self._known.update(wrong)
        log.log(
            level,
            "drift: %s differs in segment %d of %d (%s) at round %d, %s; it is corrected. The run "
            "log has each further time",
            ", ".join(_names(wrong)),
            look.index + 1,
            look.of,
            look.name,
            round_,
            "not checked before" if equal_at is None else f"equal at round {equal_at}",
        )

    # ---- correcting ------------------------------------------------------------------------

    def _settle(self) -> None:
        """Compare whole states with the other members; who differs takes over what is right."""
        trusted, self._right = self._right, ()
        shared, local = self._state()
        kept = _take_out(shared, self._own_buffers())
        settled = self.node.settle(self._image_of(shared), trusted)
        if settled is not None and settled.pulled is not None:
            tree = assemble(settled.pulled.manifest, settled.pulled.buffer)
            _put_back(tree, kept)
            self._put_right(tree, local)
        self._after_operation(settled.outcome if settled is not None else None)
        if settled is not None and settled.ruling.wrong:
            self._report(settled)

    def _put_right(self, shared: Any, local: Any) -> None:
        with self.node.out_of_step():  # Lightning asks for the log directory, by a broadcast
            self.take_over(shared, local)

    def _image_of(self, shared: dict[str, Any]) -> StateImage | None:
        node = self.node
        try:
            return StateImage.of(shared, {}, round=node.round + 1, operation=node.last_operation)
        except StateError as error:
            log.error("this member's state cannot be compared: %s", error)
            return None

    def _report(self, settled: Settled) -> None:
        wrong, pulled = _names(settled.ruling.wrong), settled.pulled
        fields = {"round": self.node.round + 1, "members": wrong, "seconds": settled.seconds}
        if settled.problem:
            log.error("this member differs and could not be corrected: %s", settled.problem)
            self.node.log("uncorrected", **fields, problem=settled.problem)
        elif pulled is None:
            self.node.log("corrected", **fields)
        else:
            self.node.log("corrected", **fields, **_figures(pulled))


def _names(uids: Collection[Uid]) -> list[str]:
    return [uid.rpartition("/")[0] for uid in uids]


def _figures(pulled: Pulled) -> dict[str, Any]:
    return {
        "bytes": pulled.manifest.total_bytes - pulled.kept_bytes,
        "kept_bytes": pulled.kept_bytes,
        "per_donor": {share.name: share.bytes for share in pulled.donors},
    }


def _take_out(shared: dict[str, Any], names: Collection[str]) -> list[dict[str, Any]]:
    """Remove these buffers from a state; returns them by the place they were at."""
    return [{n: place.pop(n) for n in names if n in place} for place in _places(shared)]


def _put_back(shared: dict[str, Any], taken: list[dict[str, Any]]) -> None:
    for place, values in zip(_places(shared), taken, strict=True):
        place.update(values)


def _places(shared: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where a state keeps buffers."""
    return shared["checkpoint"]["state_dict"], shared["unsaved_buffers"]
