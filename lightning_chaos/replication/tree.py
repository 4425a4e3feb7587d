"""A tree of training state as structure and tensors, and back; nothing is pickled.

Plain values stand for themselves in MessagePack; everything else is an array that begins with
a tag of a closed set (:mod:`~lightning_chaos.replication.kinds`).  Tensors leave only a reference
in the structure: dtype, shape and where their bytes lie.  So dict, list and tuple, int and str
keys come back as what they were, and decoding can create nothing but the types of that set.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import torch

from lightning_chaos.errors import StateError
from lightning_chaos.replication.kinds import (
    BUILDERS,
    DTYPES,
    PLAIN,
    SEQUENCES,
    SETS,
    dtype_name,
    mapping,
    mapping_tag,
    numpy_dtype,
)

ALIGNMENT = 64
"""Tensors begin at multiples of so many bytes."""
MAX_DEPTH = 100


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    structure: bytes
    tensors: bytes


class Layout:
    """Structure of a tree, and the tensor bytes it refers to.

    Attributes:
        structure: MessagePack.
        pieces: ``(offset, bytes)`` of every non-empty tensor by offset; CPU tensors are not copied,
            so the views show the live memory.
        tensor_bytes: end of the last tensor, rounded up to :data:`ALIGNMENT`.
    """

    def __init__(self, tree: object, name: str = "", *, only_look: bool = False) -> None:
        """Lay out a tree.

        Args:
            tree: nested dicts, lists, tuples, sets, scalars, tensors, numpy arrays.
            name: what the tree is called in errors.
            only_look: leave out what tensors hold; those of a card are copied else.

        Raises:
            StateError: a value of a type that cannot travel; the message names its path.
        """
        self.pieces: list[tuple[int, memoryview]] = []
        self.tensor_bytes = 0
        self._only_look = only_look
        try:
            self.structure = msgspec.msgpack.encode(self._node(tree, name, 0))
        except UnicodeEncodeError as error:  # as a path with bytes that are no text
            raise StateError(
                f"{name or 'the state'} holds {error.object!r}, which has no encoding and cannot "
                "be sent to a newcomer"
            ) from None

    def _node(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if kind in PLAIN:
            return value
        if kind is int:
            return value if -(1 << 63) <= value < 1 << 64 else ["int", str(value)]
        if depth > MAX_DEPTH:
            raise StateError(
                f"{path} is nested deeper than {MAX_DEPTH} levels, or refers to itself"
            )
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value, path)
        if tag := SEQUENCES.get(kind):
            return [tag, *(self._node(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value))]
        if tag := SETS.get(kind):
            nodes = [self._node(v, f"{path}{{}}", depth + 1) for v in value]
            return [tag, *sorted(nodes, key=msgspec.msgpack.encode)]
        if tag := mapping_tag(kind):
            nodes = [tag]
            for key, item in value.items():
                inner = f"{path}.{key}" if path else str(key)
                nodes += (self._node(key, inner, depth + 1), self._node(item, inner, depth + 1))
            return nodes
        if kind is complex:
            return ["complex", value.real, value.imag]
        if isinstance(value, torch.dtype) and dtype_name(value) in DTYPES:
            return ["dtype", dtype_name(value)]
        if isinstance(value, torch.device):
            return ["device", str(value)]
        if isinstance(value, pathlib.Path):
            return ["path", str(value)]
        raise StateError(
            f"{path or 'the state'} has type {kind.__name__}, which cannot be sent to a newcomer; "
            "keep it as numbers, strings, tensors, dicts, lists, tuples or sets"
        )

    def _tensor(self, value: torch.Tensor, path: str) -> list[Any]:
        name = dtype_name(value.dtype)
        if type(value) not in (torch.Tensor, torch.nn.Parameter) or name not in DTYPES:
            raise StateError(f"{path} is a {type(value).__name__} of {name}: it cannot be sent")
        if value.layout is not torch.strided or value.is_meta:
            raise StateError(f"{path} is a tensor without plain memory: it cannot be sent")
        if self._only_look:
            return []
        dense = value.detach().resolve_conj().resolve_neg().cpu()
        order = _memory_order(dense)
        if order:
            dense = dense.permute(order)
        dense = dense.contiguous()
        offset = self.tensor_bytes
        if dense.numel():
            self._place(dense.reshape(-1).view(torch.uint8).numpy().data)
        return ["tensor", name, list(value.shape), order, offset]

    def _array(self, value: np.ndarray[Any, Any] | np.generic, path: str) -> list[Any]:
        subclass = isinstance(value, np.ndarray) and type(value) is not np.ndarray
        if subclass or value.dtype.hasobject or value.dtype.names is not None:
            raise StateError(f"{path} is a numpy value of {value.dtype}: it cannot be sent")
        if isinstance(value, np.generic):
            return ["scalar", value.dtype.str, value.tobytes()]
        offset = self.tensor_bytes
        if value.nbytes:
            flat = np.ascontiguousarray(value).reshape(-1)
            self._place(flat.view(np.uint8).data)
        return ["array", value.dtype.str, list(value.shape), offset]

    def _place(self, data: memoryview) -> None:
        self.pieces.append((self.tensor_bytes, data))
        self.tensor_bytes += -(-len(data) // ALIGNMENT) * ALIGNMENT


def restore(structure: bytes | memoryview, tensors: memoryview) -> Any:
    """The tree of a structure; its tensors are copies, so that the bytes may be freed or changed.

    Raises:
        StateError: malformed, or a reference outside ``tensors``.
    """
    try:
        return _Reader(tensors).node(msgspec.msgpack.decode(structure), 0)
    except StateError:
        raise
    except (
        msgspec.MsgspecError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        raise StateError(f"received state is malformed: {error}") from error


def pack(tree: object, name: str = "") -> bytes:
    """A small tree as one blob, tensors inline.

    Raises:
        StateError: a value of a type that cannot travel; the message names its path.
    """
    layout = Layout(tree, name)
    tensors = bytearray(layout.tensor_bytes)
    for offset, data in layout.pieces:
        tensors[offset : offset + len(data)] = data
    return msgspec.msgpack.encode(_Packed(layout.structure, bytes(tensors)))


def unpack(blob: bytes | memoryview) -> Any:
    """The tree of :func:`pack`.

    Raises:
        StateError: malformed.
    """
    try:
        packed = msgspec.msgpack.decode(blob, type=_Packed)
    except msgspec.MsgspecError as error:
        raise StateError(f"received state is malformed: {error}") from error
    return restore(packed.structure, memoryview(packed.tensors))


class _Reader:
    """Turns nodes back into values."""

    def __init__(self, tensors: memoryview) -> None:
        self._tensors = tensors

    def node(self, node: Any, depth: int) -> Any:
        if not isinstance(node, list):
            return node
        if depth > MAX_DEPTH:
            raise StateError(f"received state is nested deeper than {MAX_DEPTH} levels")
        tag, *rest = node
        if reader := _LEAVES.get(tag):
            return reader(self, *rest)
        items = [self.node(item, depth + 1) for item in rest]
        if builder := BUILDERS.get(tag):
            return builder(items)
        return mapping(tag, zip(items[::2], items[1::2], strict=True))

    def tensor(self, name: str, shape: list[int], order: list[int], offset: int) -> torch.Tensor:
        dtype = DTYPES[name]
        # permuting nothing checks that ``order`` is a permutation
        stored = torch.empty(shape, dtype=dtype, device="meta").permute(
            order or list(range(len(shape)))
        )
        data = self._slice(offset, stored.numel() * dtype.itemsize)
        flat = torch.empty(len(data), dtype=torch.uint8)
        flat.numpy()[:] = np.frombuffer(data, np.uint8)
        value = flat.view(dtype).reshape(stored.shape)
        return value.permute(_inverse(order)) if order else value

    def array(self, name: str, shape: list[int], offset: int) -> np.ndarray[Any, Any]:
        dtype = numpy_dtype(name)
        data = self._slice(offset, math.prod(shape) * dtype.itemsize)
        value = np.empty(shape, dtype)
        value.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
        return value

    def _slice(self, offset: int, size: int) -> memoryview:
        if not 0 <= offset <= offset + size <= len(self._tensors):
            raise StateError(
                f"received state refers to bytes {offset}..{offset + size} of {len(self._tensors)}"
            )
        return self._tensors[offset : offset + size]


_LEAVES: dict[str, Callable[..., Any]] = {
    "int": lambda _, digits: int(digits),
    "complex": lambda _, real, imag: complex(real, imag),
    "dtype": lambda _, name: DTYPES[name],
    "device": lambda _, name: torch.device(name),
    "path": lambda _, text: pathlib.Path(text),
    "scalar": lambda _, name, data: np.frombuffer(data, numpy_dtype(name))[0],
    "tensor": _Reader.tensor,
    "array": _Reader.array,
}


def _memory_order(tensor: torch.Tensor) -> list[int]:
    """Dimensions from outermost to innermost in memory; empty for the usual order.

    Keeps channels-last tensors what they are.  Strides of dimensions of size one mean nothing
    and may differ between members, so they must not show.
    """
    if tensor.is_contiguous():
        return []
    dims = range(tensor.dim())
    order = sorted(dims, key=lambda d: (tensor.shape[d] == 1, -tensor.stride()[d]))
    return order if tensor.permute(order).is_contiguous() else []


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)
