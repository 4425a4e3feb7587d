"""What a worker may do next, as training is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_chaos.collective.roots import Floats
from lightning_chaos.protocol.values import OpId, Uid, View


@dataclass(frozen=True, slots=True)
class Go:
    """The round may begin."""

    view: View
    """View it runs under."""
    sharers: tuple[Uid, ...]
    """Among whom its samples are shared out, oldest first."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Newcomers pull the state at the begin of this round: stand still and serve them."""

    view: View


@dataclass(frozen=True, slots=True)
class Apart:
    """This node is not in the run: it has not joined yet, or the run went on without it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """This node has left as planned."""


Turn = Go | Hold | Apart | Gone


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation gave."""

    op: OpId
    view: View
    """Whose members contributed, by its plan: the same at all of them."""
    weights: tuple[float, ...]
    total: float
    blobs: tuple[bytes, ...]
    result: Floats | None
    """Weighted mean; copy what you keep before the operation after the next."""


class Sharers:
    """Among whom the samples of each round are shared out.

    A step function of the round.  Planned views step at their switch round.  An unplanned one
    steps after the highest round that any member had begun, because those who begin it later
    must take the slices that the others left them.
    """

    def __init__(self, round_: int, uids: Sequence[Uid]) -> None:
        self._steps: list[tuple[int, tuple[Uid, ...]]] = [(round_, tuple(uids))]

    def step(self, round_: int, uids: Sequence[Uid]) -> None:
        """From this round on these share; later steps that were planned are void."""
        self._steps = [s for s in self._steps if s[0] < round_] or self._steps[:0]
        self._steps.append((round_, tuple(uids)))

    def at(self, round_: int) -> tuple[Uid, ...]:
        """Who shares the samples of that round."""
        return next(uids for start, uids in reversed(self._steps) if start <= round_)

    def forget_before(self, round_: int) -> None:
        """Steps that no coming round looks at."""
        while len(self._steps) > 1 and self._steps[1][0] <= round_:
            del self._steps[0]
