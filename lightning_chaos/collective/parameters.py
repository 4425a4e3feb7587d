"""A module's parameters: the trained ones in vector order, and all of them described."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lightning_chaos.collective.flat import SUMMABLE
from lightning_chaos.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Parameter:
    """One that is trained."""

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


def check_known(module: nn.Module, known: Sequence[Parameter]) -> None:
    """Make sure that no other parameter is trained by now.

    Raises:
        ConfigError: one was unfrozen or added; says which.
    """
    ids = {id(parameter.tensor) for parameter in known}
    for name, tensor in module.named_parameters():
        if tensor.requires_grad and id(tensor) not in ids:
            raise ConfigError(
                f"Parameter {name} was frozen or absent when training began and is trained "
                "now: the members would not agree on it. Unfreeze or add it before fit()."
            )


def described(module: nn.Module) -> Iterator[tuple[str, str]]:
    """(name, ``shape dtype``) of all parameters and buffers; says which are frozen."""
    for name, parameter in module.named_parameters():
        yield name, _describe(parameter) + ("" if parameter.requires_grad else " frozen")
    for name, buffer in module.named_buffers():
        yield name, _describe(buffer) + " buffer"


def _describe(tensor: torch.Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    return f"{shape} {str(tensor.dtype).removeprefix('torch.')}"
