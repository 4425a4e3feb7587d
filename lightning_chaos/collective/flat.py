"""The flat float32 vector of an operation, and bitmaps about its parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

import torch

from lightning_chaos.collective.layout import FLOAT_BYTES
from lightning_chaos.errors import OperationMismatch, WireError

Buckets = tuple[tuple[int, int], ...]
"""(offset, length) in bytes of each piece of the flat vector that is sent by itself."""

SUMMABLE = (torch.float32, torch.bfloat16, torch.float16)
"""Dtypes whose values a float32 holds exactly."""


def buckets(begin: int, values: int, bucket_bytes: int) -> Buckets:
    """Cut ``values`` floats from the ``begin``-th on into pieces of at most ``bucket_bytes``."""
    start, stop = FLOAT_BYTES * begin, FLOAT_BYTES * (begin + values)
    return tuple((at, min(bucket_bytes, stop - at)) for at in range(start, stop, bucket_bytes))


def scale_into(out: torch.Tensor, tensor: torch.Tensor | None, weight: float) -> None:
    """Write ``weight * tensor`` into a float32 CPU tensor of its shape; zeros for None."""
    if tensor is None:
        out.zero_()
    elif tensor.dtype is torch.float32 and tensor.device == out.device:
        torch.mul(tensor, weight, out=out)
    else:
        out.copy_(tensor)  # to float32 before the weight, not after
        out.mul_(weight)


def check_size(result: torch.Tensor, values: int) -> None:
    """Make sure that a result answers a contribution of ``values`` float32.

    Raises:
        OperationMismatch: It does not.
    """
    if result.numel() != values or result.dtype is not torch.float32:
        raise OperationMismatch(
            f"a result of {result.numel()} {result.dtype} answers a contribution of {values} "
            "torch.float32: the members do not run the same operation"
        )


def bitmap(members: Iterable[int], size: int) -> bytes:
    """``size`` bits; bit ``i % 8`` of byte ``i // 8`` is set for every member ``i``."""
    bits = bytearray((size + 7) // 8)
    for i in members:
        bits[i // 8] |= 1 << i % 8
    return bytes(bits)


def union(bitmaps: Sequence[bytes], size: int) -> frozenset[int]:
    """What any of the bitmaps has.

    Raises:
        WireError: A bitmap is not of that size.
    """
    for one in bitmaps:
        if len(one) != (size + 7) // 8:
            raise WireError(f"a bitmap of {size} bits came with {len(one)} bytes")
    anyone: int = reduce(int.__or__, (int.from_bytes(one, "little") for one in bitmaps), 0)
    return frozenset(i for i in range(size) if anyone >> i & 1)
