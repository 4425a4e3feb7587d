"""What a node writes of its rounds and views: rounds only once they are stable."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from lightning_chaos.monitor.runlog import RunLog
from lightning_chaos.planning.mesh import mesh_plan
from lightning_chaos.protocol.readings import Reading
from lightning_chaos.protocol.values import Decision, Host, OpId, Uid, View


class Chronicle:
    """One incarnation's part of the run log.

    Args:
        run_log: of the node.
    """

    def __init__(self, run_log: RunLog) -> None:
        self._run_log = run_log
        self._kept: list[tuple[OpId, dict[str, Any]]] = []
        self._frozen_at: float | None = None

    # ---- rounds ----------------------------------------------------------------------------

    def keep(self, op: OpId, fields: dict[str, Any]) -> None:
        """A round is to be written when this operation is stable."""
        self._kept.append((op, fields))

    def stable(self, op: OpId) -> None:
        """All operations up to this one are stable."""
        while self._kept and self._kept[0][0] <= op:
            self._run_log.write("round", **self._kept.pop(0)[1])

    def all_stable(self) -> None:
        """Every operation so far is stable."""
        if self._kept:
            self.stable(self._kept[-1][0])

    # ---- views -----------------------------------------------------------------------------

    def committed(self, view: View, decision: Decision | None, reason: str) -> None:
        """The COMMIT of a view is here."""
        self._run_log.write("commit", epoch=view.epoch, reason=reason, planned=decision is None)

    def in_force(self, view: View, reason: str, begun: int) -> None:
        """A view comes into force at a worker that has begun that round last."""
        plain = view.plan == mesh_plan(view.uids)
        self._run_log.write(
            "view",
            generation=view.generation,
            epoch=view.epoch,
            members=[m.node for m in view.members],
            uids=list(view.uids),
            learners=[m.node for m in view.learners],
            missing=[[uid.rpartition("/")[0] for uid in pair] for pair in view.missing],
            switch=view.switch,
            round=begun,
            reason=reason,
            island=view.lineage.island,
            **({} if plain else {"plan": msgspec.to_builtins(view.plan)}),
        )

    def held(self, view: View, round_: int, seconds: float) -> None:
        """Before that round this worker stood still for the view's learners."""
        self._run_log.write(
            "hold",
            round=round_,
            epoch=view.epoch,
            seconds=seconds,
            serving=[m.node for m in view.learners],
        )

    def frozen(self) -> None:
        """From now on this worker completes nothing."""
        self._frozen_at = time.monotonic()

    def thawed(self, view: View, decision: Decision, reason: str) -> None:
        """This view ends the freeze, if there was one."""
        if self._frozen_at is None:
            return
        seconds = time.monotonic() - self._frozen_at
        self._frozen_at = None
        redone = not decision.held
        self._run_log.write(
            "freeze", epoch=view.epoch, seconds=seconds, reason=reason, redone=redone
        )

    def links(self, reasons: Mapping[Uid, str]) -> None:
        """From now on the peer has no link to these."""
        lost = {uid.rpartition("/")[0]: why for uid, why in reasons.items()}
        self._run_log.write("links", lost=lost)

    def gauges(self, host: Host, rates: Mapping[Uid, Reading]) -> None:
        """How its machine is doing, and what comes from each, as far as that is known."""
        heard = {
            uid.rpartition("/")[0]: {
                "mbit": round(reading.bytes_per_s * 8e-6, 1),
                "known": reading.trust.name.lower().replace("_", " "),
                "age_s": round(reading.age_s, 1),
            }
            for uid, reading in rates.items()
        }
        self._run_log.write("gauges", host=msgspec.structs.asdict(host), heard=heard)

    def waiting(self, reason: str) -> None:
        """The peer waits for this, '' for nothing any more."""
        self._run_log.write("waiting", reason=reason)

    def leaving(self) -> None:
        """This node asks to be planned out."""
        self._run_log.write("leaving")

    def final(self, fields: dict[str, Any]) -> None:
        """Training is over everywhere after the last operation."""
        self.all_stable()
        self._run_log.write("final", **fields)


def run_log_of(directory: str, node: str) -> RunLog:
    """The run log of a node, a file of its name.

    Args:
        directory: of all nodes' logs; '' for one that writes nothing.
        node: name of the node.
    """
    return RunLog(Path(directory) / f"{_file_name(node)}.jsonl" if directory else None, node)


def _file_name(node: str) -> str:
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in node)
    return safe if safe == node else f"{safe}-{hashlib.sha256(node.encode()).hexdigest()[:6]}"
