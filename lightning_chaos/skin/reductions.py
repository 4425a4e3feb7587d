"""What Lightning calls a reduce operation, on values gathered in order of age."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_chaos.errors import ConfigError

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda t: t.sum(0),
    "mean": lambda t: t.mean(0),
    "avg": lambda t: t.mean(0),
    "max": lambda t: t.amax(0),
    "min": lambda t: t.amin(0),
    "product": lambda t: t.prod(0),
}


def combine(parts: list[Tensor], reduce_op: Any) -> Tensor:
    """One tensor of the parts' shape.

    Args:
        parts: same shape and dtype each, oldest member's first.
        reduce_op: a name as Lightning's, or a ``torch.distributed.ReduceOp``.

    Raises:
        ConfigError: the operation is not supported.
    """
    name = str(reduce_op).rpartition(".")[2].lower() if reduce_op is not None else "sum"
    function = _FUNCTIONS.get(name)
    if function is None:
        raise ConfigError(f"reduce_op={reduce_op!r}: use one of {', '.join(_FUNCTIONS)}")
    stacked = torch.stack(parts)
    if name in ("mean", "avg") and not stacked.is_floating_point():
        stacked = stacked.to(torch.get_default_dtype())
    return function(stacked)
