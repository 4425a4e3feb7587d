"""The float buffers of a module that members keep equal.

Only those that training changes at some member are *active* and sent; a frozen table of any size
costs nothing.  The active set is shared state: every member derives it from the same bitmaps.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import nn

from lightning_chaos.collective.flat import SUMMABLE, bitmap, scale_into, union
from lightning_chaos.errors import ConfigError, StateError, WireError

BufferMode = Literal["mean", "first", "local"]
"""Float buffers become the weighted mean, the oldest member's, or stay each member's own."""

_COMPARED_BYTES = 256 << 10
"""Buffers up to this size are compared by value: kernels like batch_norm write their running
statistics without moving the tensor's version counter (torch 2.13).  Larger ones go by it."""


class _Buffer:
    """One float buffer, and how it looked when last asked."""

    def __init__(self, name: str, owner: nn.Module, key: str, tensor: torch.Tensor) -> None:
        self.name = name
        self._owner, self._key = owner, key
        self.shape, self.dtype, self.numel = tensor.shape, tensor.dtype, tensor.numel()
        self.bytes = tensor.numel() * tensor.element_size()
        self.remember()

    @property
    def tensor(self) -> torch.Tensor:
        tensor = self._owner._buffers.get(self._key)
        if tensor is None or tensor.shape != self.shape or tensor.dtype != self.dtype:
            raise ConfigError(
                f"Buffer {self.name} was removed or changed its shape or dtype in training: it "
                'cannot be kept equal among members. Use buffers="local" if it need not be.'
            )
        return tensor

    def remember(self) -> None:
        tensor = self.tensor
        self._seen = weakref.ref(tensor)
        self._version = _version(tensor)
        self._copy = _bits(tensor).clone() if self.bytes <= _COMPARED_BYTES else None

    def has_changed(self) -> bool:
        """Whether it differs from what :meth:`remember` saw, which this brings up to date."""
        tensor = self.tensor
        if tensor is not self._seen():
            changed = True
        elif self._copy is not None:
            changed = not torch.equal(_bits(tensor), self._copy)
        else:
            changed = _version(tensor) != self._version
        if changed:
            self.remember()
        return changed


class SharedBuffers:
    """All float buffers of a module, and which of them are active.

    Args:
        module: On its device.
        mode: With ``"mean"`` the active buffers' weighted values are a part of the flat vector;
            with ``"first"`` their own bytes stand in every member's header, so that whoever is
            the oldest left can be followed; with ``"local"`` none is looked at.

    Raises:
        ConfigError: No such mode.
    """

    def __init__(self, module: nn.Module, mode: BufferMode) -> None:
        if mode not in ("mean", "first", "local"):
            raise ConfigError(f'buffers={mode!r} must be "mean", "first" or "local".')
        self.mode = mode
        self.active: frozenset[str] = frozenset()
        self._all = () if mode == "local" else tuple(_buffers(module))

    def values(self, names: frozenset[str]) -> int:
        """Values that these buffers take in the flat vector."""
        return sum(b.numel for b in self._chosen(names)) if self.mode == "mean" else 0

    def changed(self) -> bytes:
        """Bitmap of the buffers that changed here since the last call and are not active."""
        changed = [
            i for i, b in enumerate(self._all) if b.name not in self.active and b.has_changed()
        ]
        return bitmap(changed, len(self._all))

    def newly_active(self, bitmaps: Sequence[bytes]) -> tuple[str, ...]:
        """Names of the buffers that some member changed and that are not active yet.

        Raises:
            ConfigError: One of them cannot be averaged in float32.
            WireError: A bitmap is of the wrong length.
        """
        changed = union(bitmaps, len(self._all))
        fresh = [b for i, b in enumerate(self._all) if i in changed and b.name not in self.active]
        for buffer in fresh:
            if self.mode == "mean" and buffer.dtype not in SUMMABLE:
                raise ConfigError(
                    f"Buffer {buffer.name} is {buffer.dtype} and changes in training: its mean "
                    'in float32 would lose digits. Make it float32, or use buffers="first".'
                )
        return tuple(b.name for b in fresh)

    def pack(self, names: frozenset[str], out: torch.Tensor, weight: float) -> bytes:
        """Write these buffers, weighted, into ``out``; or return their bytes for the header."""
        if self.mode != "mean":
            return b"".join(_bits(b.tensor).cpu().numpy().tobytes() for b in self._chosen(names))
        begin = 0
        for buffer in self._chosen(names):
            view = out[begin : begin + buffer.numel].view(buffer.shape)
            scale_into(view, buffer.tensor if weight > 0 else None, weight)
            begin += buffer.numel
        return b""

    def unpack(self, names: frozenset[str], mean: torch.Tensor, values: Sequence[bytes]) -> None:
        """Write these buffers from their mean, or from the bytes of the oldest, ``values[0]``.

        Raises:
            WireError: The bytes are not as many as the buffers have.
        """
        chosen = list(self._chosen(names))
        if self.mode == "mean":
            for buffer, part in zip(
                chosen, torch.split(mean, [b.numel for b in chosen]), strict=True
            ):
                buffer.tensor.copy_(part.view(buffer.shape))
        elif chosen:
            sizes = [b.bytes for b in chosen]
            if not values or len(values[0]) != sum(sizes):
                raise WireError("the oldest member's buffers are not of the size of ours")
            oldest = torch.frombuffer(bytearray(values[0]), dtype=torch.uint8)
            for buffer, part in zip(chosen, torch.split(oldest, sizes), strict=True):
                # The clone is aligned for the wider dtype.
                buffer.tensor.copy_(part.clone().view(buffer.dtype).view(buffer.shape))

    def restore(self, active: Iterable[str]) -> None:
        """Take over an active set; what has happened to the buffers so far is no change.

        Raises:
            StateError: A name that the module does not have.
        """
        names = frozenset(active)
        unknown = names - {b.name for b in self._all}
        if unknown:
            raise StateError(
                f"The run keeps the buffer {min(unknown)} equal, which this module does not have."
            )
        for buffer in self._all:
            buffer.remember()
        self.active = names

    def in_order(self, names: frozenset[str]) -> list[str]:
        """These names as the module registered them."""
        return [b.name for b in self._chosen(names)]

    def _chosen(self, names: frozenset[str]) -> Iterator[_Buffer]:
        return (b for b in self._all if b.name in names)


def _buffers(module: nn.Module) -> Iterator[_Buffer]:
    """Float buffers, a shared one once."""
    seen: set[int] = set()
    for prefix, owner in module.named_modules():
        for key, tensor in owner._buffers.items():
            if (
                tensor is None
                or not tensor.is_floating_point()
                or not tensor.numel()
                or id(tensor) in seen
            ):
                continue
            seen.add(id(tensor))
            yield _Buffer(f"{prefix}.{key}" if prefix else key, owner, key, tensor)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # those cannot change in training
