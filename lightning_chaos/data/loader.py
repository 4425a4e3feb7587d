"""The user's DataLoader, made to follow the ledger.

Only loaders of which we know which samples they yield can be shared so that every sample counts
exactly once: a map-style dataset, read by the loader's own process, in order or shuffled.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from lightning.fabric.utilities import data as fabric_data
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)
from typing_extensions import override

from lightning_chaos.errors import DataError


@dataclass(frozen=True, slots=True)
class LoaderFacts:
    """What the members of a run must agree on to share a loader."""

    size: int
    """Samples in the dataset."""
    batch: int
    """Samples per batch, of one member."""
    shuffle: bool
    """A new permutation in each epoch; else always in order."""
    drop_last: bool
    """Leave out the end of an epoch that does not fill a batch for every member."""


class BatchSource(Protocol):
    """Says what an elastic loader yields."""

    def next_indices(self) -> list[int] | None:
        """Dataset indices of the next batch, None at the end of the epoch.

        Called when the batch is fetched, never ahead; may wait.
        """
        ...

    def batches(self) -> int:
        """Batches of the whole epoch, as far as can be told now."""
        ...


@functools.lru_cache(maxsize=1)
def permutation(seed: int, epoch: int, size: int, shuffle: bool) -> torch.Tensor:
    """Dataset index at every position of an epoch; kept for one epoch, do not write into it.

    The generator the user gave to a sampler plays no part: all members derive the same order
    from the run's seed, under one version of torch.

    Args:
        seed: Of the run.
        epoch: Data epoch, from 0.
        size: Samples in the dataset.
        shuffle: Else positions are indices.

    Returns:
        Shape ``(size,)``, int64.
    """
    if not shuffle:
        return torch.arange(size)
    digest = hashlib.blake2b(f"{seed}/{epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randperm(size, generator=generator)


class _ElasticSampler(Sampler[list[int]]):
    """Batch sampler that asks its source at each step."""

    def __init__(self, source: BatchSource, facts: LoaderFacts) -> None:
        self.source = source
        self.facts = facts

    @override
    def __iter__(self) -> Iterator[list[int]]:
        while (indices := self.source.next_indices()) is not None:
            yield indices

    def __len__(self) -> int:
        return self.source.batches()


def inspect_loader(dataloader: object) -> LoaderFacts:
    """What a training DataLoader yields.

    Raises:
        DataError: It cannot be shared so that every sample counts exactly once; says why.
    """
    if not isinstance(dataloader, DataLoader):
        raise _refusal(f"a {type(dataloader).__name__}", "return one torch DataLoader for training")
    if isinstance(dataloader.batch_sampler, _ElasticSampler):
        return dataloader.batch_sampler.facts
    if isinstance(dataloader.dataset, IterableDataset):
        raise _refusal(
            f"the IterableDataset {type(dataloader.dataset).__name__}",
            "use a map-style dataset (__getitem__ and __len__)",
        )
    if dataloader.num_workers > 0:
        raise _refusal(
            f"num_workers={dataloader.num_workers}, which fetches batches ahead of the round",
            "set num_workers=0",
        )
    size = len(dataloader.dataset)  # type: ignore[arg-type]
    if size == 0:
        raise DataError("The training dataset is empty: there is nothing to train on.")
    batches = dataloader.batch_sampler
    if batches is None:
        raise _refusal("batch_size=None", "set batch_size and let the loader make the batches")
    if type(batches) is not BatchSampler:
        raise _refusal(
            f"the batch sampler {type(batches).__name__}",
            "set batch_size, shuffle and drop_last of the DataLoader instead",
        )
    shuffle = _is_shuffled(batches.sampler, size)
    return LoaderFacts(size, batches.batch_size, shuffle, batches.drop_last)


def elastic_loader(dataloader: DataLoader[Any], source: BatchSource) -> DataLoader[Any]:
    """A loader of the same kind and dataset that yields what ``source`` says.

    An elastic loader is returned as it is.

    Raises:
        DataError: See :func:`inspect_loader`; or a subclass of DataLoader cannot be made anew.
    """
    if isinstance(dataloader.batch_sampler, _ElasticSampler):
        return dataloader
    sampler = _ElasticSampler(source, inspect_loader(dataloader))
    # These exclude each other in DataLoader.__init__: a batch sampler wants the others' defaults.
    batching = {
        "batch_sampler": sampler,
        "batch_size": 1,
        "shuffle": False,
        "sampler": None,
        "drop_last": False,
    }
    try:
        arguments = _init_arguments(dataloader)
        loader = fabric_data._reinstantiate_wrapped_cls(dataloader, **{**arguments, **batching})
    except Exception as error:
        raise DataError(
            f"A {type(dataloader).__name__} cannot be made anew with the run's batches ({error}). "
            "Pass a plain torch DataLoader, or let the class take DataLoader's arguments as "
            "**kwargs."
        ) from error
    assert isinstance(loader, DataLoader)
    return loader


def _init_arguments(dataloader: DataLoader[Any]) -> dict[str, Any]:
    """Arguments of ``__init__`` by name, as Lightning finds them."""
    values, named = fabric_data._get_dataloader_init_args_and_kwargs(
        dataloader, SequentialSampler(range(0))
    )
    names = getattr(dataloader, "__pl_saved_arg_names", ())
    return {**dict(zip(names, values, strict=True)), **named}


def _is_shuffled(sampler: object, size: int) -> bool:
    if isinstance(sampler, DistributedSampler):
        raise _refusal(
            f"a {type(sampler).__name__}, which divides by a fixed number of processes",
            "leave it out: the strategy shares the samples out itself",
        )
    if type(sampler) is SequentialSampler:
        shuffle = False
    elif type(sampler) is RandomSampler and not sampler.replacement:
        shuffle = True
    else:
        kind = type(sampler).__name__
        raise _refusal(f"a {kind} that we do not know", "set shuffle=True or False instead")
    if len(sampler) != size:
        raise _refusal(
            f"a {type(sampler).__name__} of {len(sampler)} of the dataset's {size} samples",
            "set shuffle=True or False instead and pass a torch.utils.data.Subset",
        )
    return shuffle


def _refusal(what: str, cure: str) -> DataError:
    return DataError(
        f"The training loader has {what}: it cannot be shared among members that come and go so "
        f"that every sample counts exactly once. Please {cure}."
    )
