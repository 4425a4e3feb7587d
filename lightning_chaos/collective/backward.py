"""What backward does to the gradients of trained parameters, as hooks on them see it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch

from lightning_chaos.collective.early import Early, Spans
from lightning_chaos.collective.parameters import Parameter
from lightning_chaos.errors import ConfigError

_log = logging.getLogger(__name__)


class Backward:
    """Notes which gradients came, and hands them over early where nothing changes them later.

    The first time that is only tried: where backward comes back to a gradient it had finished
    (a parameter shared between checkpointed segments, a later hook of the user's) nothing
    can leave early.  Neither does it where all gradients are one bucket.

    Args:
        parameters: that are trained, in the order of the flat vector.
        bucket_bytes: of every bucket of it but the last.
    """

    def __init__(self, parameters: Sequence[Parameter], bucket_bytes: int) -> None:
        self._parameters = parameters
        self._touched = bytearray(len(parameters))
        self._spans = Spans([p.tensor.numel() for p in parameters], bucket_bytes)
        self._early: Early | None = None
        self._steady: bool | None = None
        """Gradients stay as backward first leaves them; None before that was tried."""
        self._hooks = [
            p.tensor.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                partial(self._ready, i)
            )
            for i, p in enumerate(parameters)
        ]

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @property
    def leaves_early(self) -> bool:
        """Buckets may leave before backward ends: :meth:`expect` is of use."""
        return self._steady is not False and len(self._spans.parameters) > 1

    def expect(
        self,
        vector: torch.Tensor,
        factor: float,
        begin: Callable[[], None],
        give: Callable[[int], None],
    ) -> None:
        """The next backward is the round's last; see :class:`Early` for the arguments."""
        trial = self._steady is None
        self._early = Early(self._spans, vector, factor, begin, give, trial=trial)

    def end(self) -> Early | None:
        """What left early since :meth:`expect`, if that was called."""
        early, self._early = self._early, None
        return early

    def touched(self) -> set[int]:
        """Parameters to whose gradients backward has added since the last call.

        Raises:
            ConfigError: A gradient is sparse.
        """
        return {i for i, p in enumerate(self._parameters) if self._take_touched(i, p)}

    def standing(self, early: Early) -> set[int]:
        """Parameters whose gradients are in the vector already, as they are now.

        Raises:
            ConfigError: A gradient changed after it was handed over.
        """
        found = {i for i, p in enumerate(self._parameters) if self._stands(early, i, p)}
        if early.tried and self._steady is None:
            self._steady = True
        return found

    def _ready(self, i: int, tensor: torch.Tensor) -> None:
        """Backward has added to that gradient (called by torch)."""
        self._touched[i] = 1
        if self._early is not None and tensor.grad is not None:
            self._early.ready(i, tensor.grad, self._parameters[i].view(self._early.vector))

    def _stands(self, early: Early, i: int, parameter: Parameter) -> bool:
        name = parameter.name
        stands = early.stands(i, parameter.tensor.grad)
        if stands is None and not early.trial:
            raise ConfigError(
                f"The gradient of {name} changed after backward had finished it, and it was sent "
                "already. Do from the first batch on what changes it, or change it in "
                "on_after_backward or on_before_optimizer_step."
            )
        if stands is None and self._steady is None:
            _log.info("gradients leave after backward, not during it: that of %s changes", name)
            self._steady = False
        return bool(stands)

    def _take_touched(self, i: int, parameter: Parameter) -> bool:
        touched, self._touched[i] = self._touched[i], 0
        grad = parameter.tensor.grad
        if not touched or grad is None:
            return False
        if grad.layout is not torch.strided:
            raise ConfigError(
                f"The gradient of {parameter.name} is sparse, which cannot be reduced: "
                "make it dense (sparse=False for an embedding)."
            )
        return True
