"""A round's gradients: scaled, reduced over the members and applied, with the round's figures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from lightning_chaos.collective.flat import Buckets
from lightning_chaos.collective.reducer import Contribution
from lightning_chaos.collective.roots import mark_of
from lightning_chaos.protocol.values import Uid
from lightning_chaos.skin.drift import Drift
from lightning_chaos.skin.round_header import RoundHeader, decode_header, encode_header
from lightning_chaos.skin.slow import SlowMembers
from lightning_chaos.worker.turns import Outcome

_LABEL = "gradients"
_HOOK = "on_after_backward"


class Gradients(Drift, SlowMembers):
    """Replaces every member's own gradients by those of all, once a round."""

    def __init__(self, **lightning: Any) -> None:
        super().__init__(**lightning)
        self._blocked = False
        self._reduced = False
        self._loss_sum = 0.0
        self._mean_loss: float | None = None
        self._figures: dict[str, float] = {}

    @override
    def _begin_round(self) -> tuple[tuple[Uid, ...], int]:
        place = super()._begin_round()
        self._reduced, self._loss_sum = False, 0.0
        return place

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Only the last micro-batch of an accumulation sends its gradients."""
        self._blocked = True
        try:
            yield
        finally:
            self._blocked = False

    def backward(self, closure_loss: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Backward of a loss scaled so that the round is the mean over its samples."""
        if self._samples is not None and self._node is not None and self._node.round >= 0:
            scale = self._samples.loss_scale()
            if scale == 0.0:  # of stand-ins, which must not even touch a parameter
                closure_loss = torch.zeros_like(closure_loss, requires_grad=True)
            elif scale != 1.0:
                closure_loss = closure_loss * scale
            self._loss_sum += float(closure_loss.detach())
            if self._leave_early:
                self._expect_gradients()
        loss: Tensor = super().backward(closure_loss, *args, **kwargs)  # type: ignore[misc]
        return loss

    @property
    def _leave_early(self) -> bool:
        """The next backward's gradients may leave while it goes on.

        Not in manual optimization, where the module may give up between two steps; and not before
        a hook that may change them or ask for a collective.
        """
        module, trainer = self.lightning_module, self._trainer  # type: ignore[attr-defined]
        return (
            not self._blocked
            and self._world > 1
            and self.node.in_step
            and module.automatic_optimization
            and not any(has_own_hook(x, _HOOK) for x in (module, *trainer.callbacks))
        )

    def _expect_gradients(self) -> None:
        assert self._reducer is not None and self._samples is not None
        weight, share = float(self._samples.weight), float(self._samples.share)

        def begin(vector: Tensor, buckets: Buckets) -> None:
            self.node.begin_operation(_LABEL, vector.numpy(), weight, buckets)

        self._reducer.expect(weight, share, begin, self.node.give)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """A step without gradients (None, or no ``manual_backward``) takes part in its round.

        Lightning refuses None where there are several processes, so its loss becomes one that
        reaches no parameter.  In manual optimization the module itself leaves out the optimizer's
        step, so all members must: the label sees to that.
        """
        output = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if self._samples is None or self._node is None:
            return output
        if not self.lightning_module.automatic_optimization:  # type: ignore[attr-defined]
            if not self._reduced:
                self._samples.silence()
                self._reduce_round("a manual training_step without gradients")
        elif output is None:
            self._samples.silence()
            return torch.zeros((), device=self.root_device, requires_grad=True)
        return output

    def post_backward(self, closure_loss: Tensor) -> None:
        """Gradients are complete: reduce them, before they are unscaled or clipped."""
        super().post_backward(closure_loss)  # type: ignore[misc]
        if not self._blocked and self._reducer is not None:
            self._reduce_round()

    def optimizer_step(self, optimizer: Any, closure: Any, *args: Any, **kwargs: Any) -> Any:
        """An optimizer that looks at the loss (LBFGS) sees the mean, the same at all members."""

        def closure_of_all() -> Any:
            self._mean_loss = None
            return self._mean_of(closure())

        return super().optimizer_step(optimizer, closure_of_all, *args, **kwargs)  # type: ignore[misc]

    def _mean_of(self, loss: Any) -> Any:
        mean = self._mean_loss
        return loss if loss is None or mean is None else loss.new_tensor(mean)

    def _reduce_round(self, label: str = _LABEL) -> None:
        """One gradient operation; its result replaces every member's own gradients."""
        assert self._reducer is not None and self._samples is not None
        reducer, samples = self._reducer, self._samples
        self._reduced = True
        blob, given, weight = self._draw_up()
        outcome = self._operate(label, blob, given, weight)
        if outcome is None:
            for parameter in self.lightning_module.parameters():  # type: ignore[attr-defined]
                parameter.grad = None
            return
        headers = [decode_header(blob) for blob in outcome.blobs]
        assert outcome.result is not None
        reducer.apply(
            torch.from_numpy(outcome.result),
            [h.used for h in headers],
            [h.values for h in headers],
        )
        changes = samples.commit(
            outcome.view.uids, [h.slices for h in headers], [h.busy_s for h in headers]
        )
        self._take_note(outcome.view.uids, changes)
        self._compare(outcome, [h.digest for h in headers])
        self._record(outcome, headers)
        self._activate_buffers(headers, weight)
        self._tell(outcome.view)
        if any(h.stop for h in headers):
            self._trainer.should_stop = True

    def _draw_up(self) -> tuple[bytes, Contribution, float]:
        """This member's part of the gradient operation: its header, its values, its weight."""
        assert self._reducer is not None and self._samples is not None
        samples = self._samples
        weight, share = float(samples.weight), float(samples.share)
        given = self._reducer.contribution(weight, divided_by=share)
        loss = self._loss_sum * share / weight if weight else None
        self._loss_sum = 0.0
        stop = bool(self.node.stop_asked)
        header = RoundHeader(
            slices=samples.slice,
            used=given.used,
            buffers=given.buffers,
            values=given.values,
            stop=stop,
            loss=loss,
            busy_s=time.monotonic() - self._begun_at - self._wait_s,
            digest=self._take_digest(),
        )
        return encode_header(header), given, weight

    def _activate_buffers(self, headers: list[RoundHeader], weight: float) -> None:
        """Buffers that changed for the first time at any member are made equal at once."""
        assert self._reducer is not None
        names = self._reducer.newly_active([h.buffers for h in headers])
        if not names:
            return
        extra = self._reducer.extra_contribution(names, weight)
        outcome = self._operate("buffers", extra.values, extra, weight)
        if outcome is not None and outcome.result is not None:
            self._reducer.apply_extra(names, torch.from_numpy(outcome.result), outcome.blobs)
            self.node.log(
                "buffers",
                round=outcome.op.round,
                epoch=outcome.view.epoch,
                members=list(outcome.view.uids),
            )

    def _operate(self, label: str, blob: bytes, given: Any, weight: float) -> Outcome | None:
        begun = time.monotonic()
        if self.node.operation_begun:
            outcome = self.node.end_operation(blob)
        else:
            outcome = self.node.operate(label, blob, given.vector.numpy(), weight, given.buckets)
        self._wait_s += time.monotonic() - begun
        self._after_operation(outcome)
        return outcome

    def _record(self, outcome: Outcome, headers: list[RoundHeader]) -> None:
        """Figures for the loggers, and the round for the run log once it is stable."""
        assert self._samples is not None
        round_s = time.monotonic() - self._begun_at
        samples = outcome.total
        self._figures = {
            "chaos/members": float(len(outcome.view.members)),
            "chaos/round_s": round_s,
            "chaos/wait_s": self._wait_s,
            "chaos/samples_per_s": samples / round_s if round_s > 0 else 0.0,
        }
        parts = zip(outcome.weights, headers, strict=True)
        losses = [(w, h.loss) for w, h in parts if h.loss is not None]
        counted = sum(w for w, _ in losses)
        self._mean_loss = sum(w * loss for w, loss in losses) / counted if counted else None
        if outcome.result is None or not any(header.slices for header in headers):
            return  # a further reduction of the same round: of manual optimization, or LBFGS
        facts, ledger = self._samples.facts, self._samples.ledger
        self.node.record(
            outcome.op,
            round=outcome.op.round,
            generation=outcome.view.generation,
            epoch=outcome.view.epoch,
            data_epoch=ledger.epoch,
            members=list(outcome.view.uids),
            sharers=list(self._sharers),
            weights=list(outcome.weights),
            ranges=[[list(r) for r in h.slices] for h in headers],
            busy_s=[h.busy_s for h in headers],
            size=facts.size,
            seed=ledger.seed,
            shuffle=facts.shuffle,
            drop_last=facts.drop_last,
            trained=self._samples.trained_rounds,
            loss=self._mean_loss,
            mark=mark_of(outcome.result),
            stop=any(h.stop for h in headers),
            threads=torch.get_num_threads(),
            round_s=round_s,
            wait_s=self._wait_s,
        )

    def figures(self) -> dict[str, float]:
        """Of the last round: members, its seconds, seconds waited, samples per second."""
        return self._figures


def has_own_hook(of: Any, name: str) -> bool:
    """Whether the user gives that hook a meaning; Lightning's own classes do nothing in it."""
    where = getattr(getattr(of, name), "__module__", "")
    return not where.startswith(("lightning.", "pytorch_lightning."))
