"""How a module's buffers were at some moment, to have them so again."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

_SMALL_BYTES = 256 << 10
"""Larger buffers are copied again only when their version counter says that they changed."""

Moment = dict[str, torch.Tensor]
"""Copies of all buffers by name."""


class Buffers:
    """Remembers and restores the buffers of a module: cheap for large ones that never change.

    Args:
        module: on its device.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._large: dict[str, tuple[torch.Tensor, int, torch.Tensor]] = {}

    @torch.no_grad()
    def remember(self) -> Moment:
        """Every buffer as it is now."""
        return {name: self._copy(name, b) for name, b in self._module.named_buffers()}

    def _copy(self, name: str, buffer: torch.Tensor) -> torch.Tensor:
        if buffer.nbytes <= _SMALL_BYTES:
            return buffer.clone()
        tensor, version, copy = self._large.get(name, (None, -1, None))
        if copy is None or tensor is not buffer or version != buffer._version:
            copy = buffer.clone()
            self._large[name] = (buffer, buffer._version, copy)
        return copy

    @torch.no_grad()
    def restore(self, moment: Moment, but: Collection[str] = ()) -> None:
        """Make every buffer what it was.

        Args:
            moment: of :meth:`remember`.
            but: names of those that stay what they are.
        """
        for name, buffer in self._module.named_buffers():
            then = moment[name]
            # An unchanged one must not even seem to have been written to.
            if name not in but and self._copy(name, buffer) is not then:
                buffer.copy_(then)
                if name in self._large:
                    self._large[name] = (buffer, buffer._version, then)
