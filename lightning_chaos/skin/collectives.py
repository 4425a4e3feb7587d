"""Lightning's own collectives, among the members of the view."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from lightning_chaos.errors import ConfigError
from lightning_chaos.replication.tree import pack, unpack
from lightning_chaos.skin.reductions import combine
from lightning_chaos.skin.rounds import Rounds


class Collectives(Rounds):
    """What a module or callback asks of all members; outside of rounds this node alone answers."""

    def _gather(self, label: str, value: Any) -> list[Any]:
        """Everybody's value, oldest member's first; this node's alone outside of rounds."""
        if self._node is None or not self._node.in_step:
            return [value]
        begun = time.monotonic()
        outcome = self._node.operate(label, pack(value, label))
        self._wait_s += time.monotonic() - begun
        self._after_operation(outcome)
        return [value] if outcome is None else [unpack(blob) for blob in outcome.blobs]

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Mean, sum, … of a tensor over the members, in float order of their age."""
        if not isinstance(tensor, Tensor):
            return tensor
        parts = self._gather("reduce", tensor.detach())
        return combine(parts, reduce_op).to(tensor.device)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Whether all (or any) of the members say yes."""
        parts = self._gather("reduce_boolean_decision", bool(decision))
        return sum(parts) == len(parts) if all else any(parts)

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """Every member's tensor, stacked in order of age."""
        if sync_grads:
            raise ConfigError("all_gather(sync_grads=True) is not supported by strategy='chaos'")
        parts = self._gather("all_gather", tensor.detach())
        return torch.stack([part.to(tensor.device) for part in parts])

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """The object of the member at that place by age, the youngest's if there are not so many.

        Members may have gone since the place was chosen.
        """
        parts = self._gather("broadcast", obj)
        return parts[min(src, len(parts) - 1)]

    def barrier(self, name: str | None = None) -> None:
        """Wait until every member is here."""
        self._gather(f"barrier {name or ''}".rstrip(), None)
