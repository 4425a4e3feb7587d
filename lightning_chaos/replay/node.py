"""Stands in for a node: where training asks the others, it asks the log and plays them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from msgspec.structs import replace
from typing_extensions import override

from lightning_chaos.collective.roots import Floats
from lightning_chaos.data.ledger import Slice
from lightning_chaos.errors import ReplayError
from lightning_chaos.protocol.messages import Fingerprint
from lightning_chaos.protocol.values import OpId, Uid, View
from lightning_chaos.replay.book import Book, Contributors, Row, differs
from lightning_chaos.replay.parts import Part
from lightning_chaos.replay.sums import Sums
from lightning_chaos.replay.verdict import ReplayDone, Verdict
from lightning_chaos.replication.image import StateImage
from lightning_chaos.skin.round_header import decode_header, encode_header
from lightning_chaos.worker.node import Node
from lightning_chaos.worker.turns import Go, Outcome

if TYPE_CHECKING:
    from lightning_chaos.replay.parts import Parts

Buckets = tuple[tuple[int, int], ...]

_SAME = 'run "lightning-chaos replay" with the script, data and settings of the run'


class ReplayNode(Node):
    """A node without peer, door and thread, whose every turn is to go.

    What it does not override belongs to joins, leaves and losses, which a replay does not have.

    Args:
        book: the run.
        parts: plays the members.
    """

    def __init__(self, book: Book, parts: Parts) -> None:
        self._book = book
        self._parts = parts
        self._round, self._k = -1, 0
        self._weights: dict[Uid, float] = {}
        self._bitmaps: list[bytes] = []
        self._first_difference: int | None = None
        self.stop_asked = ""

    # ---- what is known ---------------------------------------------------------------------

    @property
    def _row(self) -> Row:
        return self._book.rounds[self._round]

    @property
    @override
    def uid(self) -> Uid:
        """The oldest contributor of the round, whose part is Lightning's own loop."""
        return self._row.members[0]

    @property
    @override
    def in_step(self) -> bool:
        """Never: what is not a round's reduction is this process's own."""
        return False

    @property
    @override
    def operation_begun(self) -> bool:
        """Never: nothing leaves before backward is done."""
        return False

    @property
    @override
    def last_operation(self) -> OpId:
        return OpId(self._round, self._k)

    @override
    def log(self, event: str, **fields: Any) -> None:
        """Nothing: the run has its log."""

    # ---- begin -----------------------------------------------------------------------------

    @override
    def ask_seat(self, fingerprint: Fingerprint, at_round: int = -1, samples: int = 0) -> None:
        """Compare what members must have alike.

        Raises:
            ReplayError: the first difference.
        """
        if found := differs(self._book.settings, dict(fingerprint)):
            name, then, now = found
            raise ReplayError(f"{name} was {then} in the run and is {now} here: {_SAME}")
        self._parts.get_ready()

    @override
    def tell_initial(self, image: StateImage) -> None:
        """Compare the state before the first round.

        Raises:
            ReplayError: it is another one.
        """
        if self._book.initial and image.digest != self._book.initial:
            raise ReplayError(
                "the run began with another state than the script makes here: the script must "
                "seed its initial weights (seed_everything), and a checkpoint that the run began "
                "with must still be what it was"
            )

    @override
    def turn(self, samples: int = 0) -> Go:
        """Go, with the view and the sharers of the log.

        Raises:
            ReplayError: the log has ended and the script has not.
        """
        row = self._book.rounds.get(self._round + 1)
        if row is None:
            raise ReplayError(
                f"the run ended after round {self._book.last}, the script goes on here: {_SAME}"
            )
        torch.set_num_threads(row.threads)
        return Go(self._view_of(row.epoch), _with_first(row))

    def _view_of(self, epoch: int) -> View:
        view = self._book.views.get(epoch)
        if view is None:
            raise ReplayError(f"no log tells of view {epoch}, by whose plan a round was added up")
        return view

    @override
    def begin_round(self) -> int:
        self._round, self._k = self._round + 1, 0
        ends = self._row.stop or (self._round == self._book.last and self._book.stopped)
        self.stop_asked = "the run was asked to end" if ends else ""
        self._parts.begin_parts()
        return self._round

    # ---- operations ------------------------------------------------------------------------

    @override
    def operate(
        self,
        label: str,
        blob: bytes = b"",
        vector: Floats | None = None,
        weight: float = 0.0,
        buckets: tuple[tuple[int, int], ...] | None = None,
    ) -> Outcome:
        """Everybody's part, summed up as the roots of the run did.

        Raises:
            ReplayError: the log contradicts what follows from the rounds before.
        """
        assert vector is not None
        k, self._k = self._k, self._k + 1
        own = Part(blob, vector, weight)
        buckets = buckets or ((0, vector.nbytes),)
        if label == "buffers":
            return self._activate(own, OpId(self._round, k), buckets)
        if k > 0:
            raise ReplayError(
                f"the optimizer evaluates its closure more than once in round {self._round} "
                "(LBFGS does): this cannot be replayed"
            )
        return self._reduce(own, OpId(self._round, k), buckets)

    def _reduce(self, own: Part, op: OpId, buckets: Buckets) -> Outcome:
        row, parts = self._row, self._parts
        shares = [self._share(i) for i in range(len(row.members))]
        parts.end_own_part()

        def play(i: int) -> Part:
            return own if i == 0 else parts.play(shares[i])

        outcome = self._add_up(op, row, own, buckets, play)
        parts.end_parts()
        self._weights = dict(zip(row.members, outcome.weights, strict=True))
        if outcome.weights != row.weights:
            raise ReplayError(
                f"round {row.round}: the log gives weights {list(row.weights)} for "
                f"{list(row.members)}, their samples make {list(outcome.weights)}"
            )
        headers = [decode_header(b) for b in outcome.blobs]
        self._bitmaps = [header.buffers for header in headers]
        # The shares of coming rounds follow from how long each took then.
        told = zip(headers, row.busy_s, strict=True)
        blobs = [encode_header(replace(header, busy_s=busy)) for header, busy in told]
        return dataclasses.replace(outcome, blobs=tuple(blobs))

    def _activate(self, own: Part, op: OpId, buckets: Buckets) -> Outcome:
        """Buffers that changed for the first time; a member may have died since the round's sum."""
        row = self._row
        by = self._book.activated.get(row.round, row)

        def play(i: int) -> Part:
            uid = by.members[i]
            return self._parts.play_buffers(
                self._bitmaps, row.members.index(uid), self._weights[uid]
            )

        return self._add_up(op, by, own, buckets, play)

    def _add_up(
        self,
        op: OpId,
        by: Row | Contributors,
        own: Part,
        buckets: Buckets,
        part_of: Callable[[int], Part],
    ) -> Outcome:
        """One operation: the parts one after another, added as soon as they can be."""
        result = np.empty_like(own.vector)
        view = self._view_of(by.epoch)
        try:
            sums = Sums(by.members, view.plan, buckets, result)
        except ValueError as error:
            raise ReplayError(f"round {op.round} and view {by.epoch}: {error}") from error
        blobs, weights = [], []
        for i, uid in enumerate(by.members):
            part = part_of(i)
            sums.add(uid, part.vector, part.weight)
            blobs.append(part.blob)
            weights.append(part.weight)
        total = sum(weights, 0.0)
        return Outcome(op, view, tuple(weights), total, tuple(blobs), result)

    def _share(self, i: int) -> Slice:
        """Samples of a member, on which log and ledger must agree."""
        row = self._row
        uid, told = row.members[i], row.ranges[i]
        due = dict(zip(row.sharers, self._parts.shares, strict=True)).get(uid)
        if due != told:
            raise ReplayError(
                f"round {row.round}: the log gives {uid} the positions {_spell(told)}, by what was "
                f"committed before they are {_spell(due or ())}"
            )
        return told

    @override
    def record(self, op: OpId, **fields: Any) -> None:
        """The round's mark tells where the sums part."""
        if self._first_difference is None and fields["mark"] != self._row.mark:
            self._first_difference = self._round

    # ---- the end ---------------------------------------------------------------------------

    @override
    def ask_to_leave(self) -> None:
        """A signal ends a replay at once."""
        raise KeyboardInterrupt

    @override
    def finish(self, final: dict[str, Any]) -> None:
        """Compare the state at the end, and end the script: what comes after the fit is not asked.

        Raises:
            ReplayError: the end came too early.
            ReplayDone: with the verdict.
        """
        book = self._book
        if self._round < book.last:
            raise ReplayError(
                f"the script ends training after round {self._round}, the run went on to round "
                f"{book.last}: {_SAME}"
            )
        raise ReplayDone(
            Verdict(
                rounds=len(book.rounds),
                samples=book.samples,
                members=book.members,
                run=book.final,
                replay=str(final.get("digest", "")),
                first_difference=self._first_difference,
            )
        )

    @override
    def close(self, reason: str = "the worker ends") -> None:
        """There is nothing to give back."""


def _with_first(row: Row) -> tuple[Uid, ...]:
    if row.members[0] not in row.sharers:
        raise ReplayError(
            f"round {row.round}: {row.members[0]} contributed and had no share of the samples"
        )
    return row.sharers


def _spell(share: Slice) -> str:
    return ", ".join(f"{start}..{stop}" for start, stop in share) or "(none)"
