"""The trained parameters of a module, in the order in which backward about finishes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from lightning_chaos.collective.flat import SUMMABLE
from lightning_chaos.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of them."""

    name: str
    tensor: nn.Parameter
    begin: int
    """First value in the flat vector."""

    def view(self, vector: torch.Tensor) -> torch.Tensor:
        """Its place in a flat vector."""
        return vector[self.begin : self.begin + self.tensor.numel()].view(self.tensor.shape)


def trained(module: nn.Module) -> Iterator[Parameter]:
    """Trained parameters in reverse order of registration, which is their vector order.

    Raises:
        ConfigError: one has no shape yet or a dtype that float32 cannot hold.
    """
    begin = 0
    for name, tensor in reversed(list(module.named_parameters())):
        if nn.parameter.is_lazy(tensor):
            raise ConfigError(
                f"Parameter {name} has no shape yet: run one batch through the model before fit()."
            )
        if not tensor.requires_grad:
            continue
        if tensor.dtype not in SUMMABLE:
            raise ConfigError(
                f"Parameter {name} is {tensor.dtype}, but gradients are summed in float32: use "
                "float32, bfloat16 or float16 parameters."
            )
        yield Parameter(name, tensor, begin)
        begin += tensor.numel()
