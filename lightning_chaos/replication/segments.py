"""A state cut into segments that are digested one at a time.

A rolling check reads another segment each time, so that what it costs does not grow with the
state.  Nothing is read, or copied from a device, before its segment's turn.
"""

from __future__ import annotations

from typing import Any

import torch

from lightning_chaos.replication.image import digest_of
from lightning_chaos.replication.tree import Layout

SEGMENT_BYTES = 4 << 20
"""A digest of so much takes about 4 ms (SHA-256 at 1,000 MB/s)."""


class Segments:
    """A tree's tensors in pieces of at most :data:`SEGMENT_BYTES`, then all the rest of it.

    Members whose trees have tensors of the same names and sizes have the same segments.

    Args:
        tree: nested dicts, lists and tuples of tensors and plain values; live, not copied.
        segment_bytes: most bytes of tensors in one.
    """

    def __init__(self, tree: object, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._segment_bytes = segment_bytes
        self._pieces: list[list[tuple[torch.Tensor, int, int]]] = []
        self._names: list[list[str]] = []
        self._room = 0
        self._rest = self._take_out(tree, "")

    def __len__(self) -> int:
        return len(self._pieces) + 1

    def name(self, index: int) -> str:
        """What is in that segment, for people."""
        if index == len(self._pieces):
            return "all that is no tensor"
        names = self._names[index]
        return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"

    def digest(self, index: int) -> bytes:
        """Digest of that segment, 16 bytes; equal where its tensors are bit-identical.

        Raises:
            StateError: a value of a type that cannot be laid out; the message names its path.
        """
        content = self._rest
        if index < len(self._pieces):
            content = [_flat(t)[first:end] for t, first, end in self._pieces[index]]
        layout = Layout([len(self), index, content], "state")
        return digest_of(*(data for _, data in layout.pieces), memoryview(layout.structure))

    def _take_out(self, value: Any, path: str) -> Any:
        """That tree without its tensors, which become pieces."""
        if isinstance(value, torch.Tensor):
            self._cut(value, path)
            return None
        if isinstance(value, dict):
            inner = f"{path}." if path else ""
            return {k: self._take_out(v, f"{inner}{k}") for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._take_out(v, f"{path}[{i}]") for i, v in enumerate(value)]
        return value

    def _cut(self, tensor: torch.Tensor, path: str) -> None:
        size, first = tensor.element_size(), 0
        while first < tensor.numel():
            if self._room < size:
                self._pieces.append([])
                self._names.append([])
                self._room = self._segment_bytes
            end = min(tensor.numel(), first + self._room // size)
            self._pieces[-1].append((tensor, first, end))
            self._names[-1].append(path)
            self._room -= (end - first) * size
            first = end


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1)
