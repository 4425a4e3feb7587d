"""A module's gradients and float buffers as one flat contribution to a round.

The flat float32 vector holds the gradients in reverse order of registration, which is about the
order in which backward finishes them, then the active buffers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from lightning_chaos.collective.backward import Backward
from lightning_chaos.collective.buffers import BufferMode, SharedBuffers
from lightning_chaos.collective.flat import (
    Buckets,
    bitmap,
    buckets,
    check_size,
    scale_into,
    union,
)
from lightning_chaos.collective.parameters import check_known, described, trained
from lightning_chaos.errors import ConfigError


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
        self._backward = Backward(self._parameters, bucket_bytes)

    def close(self) -> None:
        """Remove the hooks from the parameters."""
        self._backward.close()

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

        Where they can leave early at all, see :class:`Backward`.

        Args:
            weight: as for the :meth:`contribution` that must follow.
            divided_by: likewise.
            begin: called before the first bucket, with the contribution's vector and buckets.
            give: called with the number of a bucket whose values are final.  Both are called by
                the thread that runs backward.
        """
        if self._backward.leaves_early and 0 < weight < math.inf:
            vector, layout = self._next_vector(), self.layout
            factor = weight if divided_by is None else divided_by
            self._backward.expect(vector, factor, partial(begin, vector, layout), give)

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
        early = self._backward.end()
        if not 0 <= weight < math.inf:
            raise ConfigError(f"The weight of this member's samples is {weight}, not >= 0.")
        check_known(self._module, self._parameters)
        touched = self._backward.touched()
        used = touched if weight > 0 else set()
        self._idle_grads = frozenset(touched - used)
        vector = self._next_vector() if early is None else early.vector
        standing = set() if early is None else self._backward.standing(early)
        factor = weight if divided_by is None else divided_by
        for i, parameter in enumerate(self._parameters):
            if i not in standing:
                grad = parameter.tensor.grad if i in used else None
                scale_into(parameter.view(vector), grad, factor)
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
