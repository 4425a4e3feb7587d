"""Watches one backward and hands over every bucket of gradients as soon as it is complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lightning_chaos.collective.flat import scale_into
from lightning_chaos.collective.layout import FLOAT_BYTES


class Spans:
    """Which buckets each parameter lies in.

    Args:
        sizes: values of each parameter; they follow one another in the flat vector.
        bucket_bytes: of every bucket but the last.
    """

    def __init__(self, sizes: Sequence[int], bucket_bytes: int) -> None:
        self.of: list[range] = []
        """Buckets of each parameter; none for an empty one."""
        begin = 0
        for size in sizes:
            end = begin + size * FLOAT_BYTES
            self.of.append(range(begin // bucket_bytes, -(-end // bucket_bytes) if size else 0))
            begin = end
        self.parameters = [0] * -(-begin // bucket_bytes)
        """How many parameters lie in each bucket."""
        for buckets in self.of:
            for bucket in buckets:
                self.parameters[bucket] += 1


class Early:
    """The gradients of one backward, copied into the flat vector one by one.

    A bucket in which all parameters have their gradients is given away at once and stays as it is.
    What happens to a gradient afterwards is told by :meth:`stands`.

    Args:
        spans: of the parameters.
        vector: float32, flat, on the CPU.
        factor: every gradient is multiplied by it.
        begin: called before the first bucket is given.
        give: called with a bucket's number once it is complete.
        trial: give nothing, only see whether all would have stood.
    """

    def __init__(
        self,
        spans: Spans,
        vector: torch.Tensor,
        factor: float,
        begin: Callable[[], None],
        give: Callable[[int], None],
        *,
        trial: bool,
    ) -> None:
        self.vector = vector
        self.trial = trial
        self._spans = spans
        self._left = list(spans.parameters)
        self._factor = factor
        self._begin, self._give = begin, give
        self._begun = trial
        self._seen: dict[int, tuple[torch.Tensor, int]] = {}

    @torch.no_grad()
    def ready(self, i: int, grad: torch.Tensor, view: torch.Tensor) -> None:
        """Backward has finished the gradient of that parameter; ``view`` is its place."""
        if grad.layout is not torch.strided:
            return  # refused at the end
        buckets = self._spans.of[i]
        again = i in self._seen
        if again and not all(self._left[bucket] for bucket in buckets):
            return  # part of it is given: it may not change, and will not stand
        scale_into(view, grad, self._factor)
        self._seen[i] = grad, grad._version
        if again:
            return
        for bucket in buckets:
            self._left[bucket] -= 1
            if not self._left[bucket] and not self.trial:
                if not self._begun:
                    self._begun = True
                    self._begin()
                self._give(bucket)

    @property
    def tried(self) -> bool:
        """Backward has come to any gradient."""
        return bool(self._seen)

    def stands(self, i: int, grad: torch.Tensor | None) -> bool | None:
        """Whether this gradient is in the vector; None if a part of an older one was given."""
        seen = self._seen.get(i)
        if seen is None:
            return False
        if grad is seen[0] and grad._version == seen[1]:
            return True
        return False if all(self._left[bucket] for bucket in self._spans.of[i]) else None
