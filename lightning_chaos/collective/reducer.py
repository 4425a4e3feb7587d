"""A module's gradients and float buffers as one flat contribution to a round.

The flat float32 vector holds the gradients in reverse order of registration, which is about the
order in which backward finishes them, then the active buffers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from lightning_chaos.collective.buffers import BufferMode, SharedBuffers
from lightning_chaos.collective.early import Early, Spans
from lightning_chaos.collective.flat import (
    Buckets,
    bitmap,
    buckets,
    check_size,
    scale_into,
    union,
)
from lightning_chaos.collective.parameters import Parameter, check_known, described, trained
from lightning_chaos.errors import ConfigError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one member gives to the sums of an operation, and to its header."""

    vector: torch.Tensor
    """Weighted values, float32, flat, on the CPU.  The next round's contribution leaves it alone,
    the one after that may overwrite it."""
    used: bytes
    """Bitmap of trained parameters, in vector order: those with a gradient that counts."""
    buffers: bytes
    """Bitmap of float buffers that changed here and are not active yet."""
    values: bytes
    """For ``buffers="first"``: the active buffers' own bytes, for the header.  Else empty."""
    buckets: Buckets
    """Cover the vector in order."""


class Reducer:
    """Turns a module's gradients and float buffers into contributions and takes results back.

    Build it once the module is on its device.  In each round: :meth:`expect` before the last
    backward if its buckets are to leave while it goes on, :meth:`contribution` after it,
    :meth:`apply` with the mean; if :meth:`newly_active` then names buffers, one more
    operation with :meth:`extra_contribution` and :meth:`apply_extra`.  Integer and complex
    buffers are never touched.

    Args:
        module: Its trained parameters are float32, bfloat16 or float16; sums are float32.
        bucket_bytes: Bytes of a bucket, a multiple of 4.
        buffers: What becomes of float buffers, see :class:`SharedBuffers`.

    Raises:
        ConfigError: An argument or a parameter cannot work; says which.
    """

    def __init__(
        self, module: nn.Module, *, bucket_bytes: int = 4 << 20, buffers: BufferMode = "mean"
    ) -> None:
        if bucket_bytes <= 0 or bucket_bytes % 4:
            raise ConfigError(f"bucket_bytes={bucket_bytes} must be a positive multiple of 4.")
        self._module = module
        self._bucket_bytes = bucket_bytes
        self._parameters = tuple(trained(module))
        self._gradients = sum(p.tensor.numel() for p in self._parameters)
        self._buffers = SharedBuffers(module, buffers)
        self._vectors: list[torch.Tensor] = []
        self._idle_grads: frozenset[int] = frozenset()
        self._touched = bytearray(len(self._parameters))
        self._spans = Spans([p.tensor.numel() for p in self._parameters], bucket_bytes)
        self._early: Early | None = None
        self._steady: bool | None = None
        """Gradients stay as backward first leaves them; None before that was tried."""
        self._hooks = [
            p.tensor.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                partial(self._ready, i)
            )
            for i, p in enumerate(self._parameters)
        ]

    def close(self) -> None:
        """Remove the hooks from the parameters."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @property
    def layout(self) -> Buckets:
        """Buckets of the flat vector now: gradients, then active buffers."""
        more = self._size - self._gradients
        return buckets(0, self._gradients, self._bucket_bytes) + buckets(
            self._gradients, more, self._bucket_bytes
        )

    @property
    def fingerprint(self) -> tuple[tuple[str, str], ...]:
        """(name, ``shape dtype``) of all parameters and buffers, and how they are reduced."""
        options = (("bucket_bytes", str(self._bucket_bytes)), ("buffers", self._buffers.mode))
        return (*described(self._module), *options)

    def expect(
        self,
        weight: float,
        divided_by: float | None,
        begin: Callable[[torch.Tensor, Buckets], None],
        give: Callable[[int], None],
    ) -> None:
        """The next backward is the round's last: hand over its buckets as they are complete.

        The first time that is only tried: where backward comes back to a gradient it had finished
        (a parameter shared between checkpointed segments, a later hook of the user's) nothing
        can leave early.  Neither does it where all gradients are one bucket.

        Args:
            weight: as for the :meth:`contribution` that must follow.
            divided_by: likewise.
            begin: called before the first bucket, with the contribution's vector and buckets.
            give: called with the number of a bucket whose values are final.  Both are called by
                the thread that runs backward.
        """
        count = len(self._spans.parameters)
        if self._steady is False or count < 2 or not 0 < weight < math.inf:
            return
        vector, layout = self._next_vector(), self.layout
        factor = weight if divided_by is None else divided_by
        trial = self._steady is None
        begin_this = partial(begin, vector, layout)
        self._early = Early(self._spans, vector, factor, begin_this, give, trial=trial)

    @torch.no_grad()
    def contribution(self, weight: float, divided_by: float | None = None) -> Contribution:
        """Gradients of the passes since the last call, and the active buffers.

        Args:
            weight: Samples (or tokens) behind the gradients; 0 if all micro-batches were idle:
                then nothing counts, not even a NaN.
            divided_by: The gradients are sums over those samples divided by this, more than
                ``weight`` where some of the samples gave none; None if they are means.

        Raises:
            ConfigError: A gradient is sparse, or changed after it was handed over; a parameter
                was unfrozen or added after the reducer was built; or the weight is not a number
                >= 0.
        """
        early, self._early = self._early, None
        if not 0 <= weight < math.inf:
            raise ConfigError(f"The weight of this member's samples is {weight}, not >= 0.")
        check_known(self._module, self._parameters)
        touched = {i for i, p in enumerate(self._parameters) if self._take_touched(i, p)}
        used = touched if weight > 0 else set()
        self._idle_grads = frozenset(touched - used)
        vector = self._next_vector() if early is None else early.vector
        for i, parameter in enumerate(self._parameters):
            if early is None or not self._stands(early, i):
                grad = parameter.tensor.grad if i in used else None
                factor = weight if divided_by is None else divided_by
                scale_into(parameter.view(vector), grad, factor)
        if early is not None and early.tried and self._steady is None:
            self._steady = True
        active = self._buffers.active
        return Contribution(
            vector=vector,
            used=bitmap(used, len(self._parameters)),
            buffers=self._buffers.changed(),
            values=self._buffers.pack(active, vector[self._gradients :], weight),
            buckets=self.layout,
        )

    @torch.no_grad()
    def apply(
        self, result: torch.Tensor, used: Sequence[bytes], values: Sequence[bytes] = ()
    ) -> None:
        """Make the round's mean the gradient, and the active buffers what ``buffers`` says.

        A parameter that no member used keeps its gradient, None stays None; but what only a
        stand-in of ours left there goes, since the others do not have it.

        Args:
            result: The mean, shape and dtype of :attr:`Contribution.vector`; copied from.
            used: Every member's :attr:`Contribution.used`, oldest first.
            values: Every member's :attr:`Contribution.values`, oldest first.

        Raises:
            OperationMismatch: The result is of another size than the contribution.
            WireError: A bitmap or the buffers' bytes are of the wrong length.
        """
        check_size(result, self._size)
        anyone = union(used, len(self._parameters))
        for i, parameter in enumerate(self._parameters):
            tensor = parameter.tensor
            if i in anyone:
                if tensor.grad is None:
                    tensor.grad = torch.empty_like(tensor)
                tensor.grad.copy_(parameter.view(result))
            elif i in self._idle_grads:
                tensor.grad = None
        self._buffers.unpack(self._buffers.active, result[self._gradients :], values)

    def newly_active(self, buffers: Sequence[bytes]) -> tuple[str, ...]:
        """Names of the buffers that some member changed and that are not active yet.

        Args:
            buffers: Every member's :attr:`Contribution.buffers`.

        Raises:
            ConfigError: One of them cannot be averaged in float32.
            WireError: A bitmap is of the wrong length.
        """
        return self._buffers.newly_active(buffers)

    @torch.no_grad()
    def extra_contribution(self, names: Iterable[str], weight: float) -> Contribution:
        """These buffers alone, for the one operation that makes them active.

        Args:
            names: What :meth:`newly_active` said.
            weight: The weight of this round.
        """
        chosen = frozenset(names)
        size = self._buffers.values(chosen)
        vector = torch.empty(size)
        return Contribution(
            vector=vector,
            used=b"",
            buffers=b"",
            values=self._buffers.pack(chosen, vector, weight),
            buckets=buckets(0, size, self._bucket_bytes),
        )

    @torch.no_grad()
    def apply_extra(
        self, names: Iterable[str], result: torch.Tensor, values: Sequence[bytes] = ()
    ) -> None:
        """Take the result of that operation; from now on the buffers are part of every round.

        Raises:
            OperationMismatch, WireError: As :meth:`apply`.
        """
        chosen = frozenset(names)
        check_size(result, self._buffers.values(chosen))
        self._buffers.unpack(chosen, result, values)
        self._buffers.active |= chosen
        self._vectors.clear()

    def state_dict(self) -> dict[str, list[str]]:
        """What members share: the active buffers."""
        return {"active": self._buffers.in_order(self._buffers.active)}

    def load_state_dict(self, state: dict[str, list[str]]) -> None:
        """Take over the active set of the run; call it once the module's own state is loaded.

        What loading did to the buffers does not count as a change.

        Raises:
            StateError: The state names a buffer that the module does not have.
        """
        self._buffers.restore(state["active"])
        self._vectors.clear()

    @property
    def _size(self) -> int:
        """Values in the flat vector."""
        return self._gradients + self._buffers.values(self._buffers.active)

    def _next_vector(self) -> torch.Tensor:
        """One of two vectors in turn: a finished operation may still pass its own on."""
        if len(self._vectors) < 2:
            self._vectors.append(torch.empty(self._size))
        else:
            self._vectors.reverse()
        return self._vectors[-1]

    def _ready(self, i: int, tensor: torch.Tensor) -> None:
        """Backward has added to that gradient (called by torch)."""
        self._touched[i] = 1
        if self._early is not None and tensor.grad is not None:
            self._early.ready(i, tensor.grad, self._parameters[i].view(self._early.vector))

    def _stands(self, early: Early, i: int) -> bool:
        name, tensor = self._parameters[i].name, self._parameters[i].tensor
        stands = early.stands(i, tensor.grad)
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
