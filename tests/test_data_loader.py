from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.data import _replace_dunder_methods
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from lightning_chaos.data.loader import (
    LoaderFacts,
    elastic_loader,
    inspect_loader,
    permutation,
)
from lightning_chaos.errors import DataError

NUMBERS = TensorDataset(torch.arange(10))


class Script:
    """A batch source that yields what it is told and counts how often it was asked."""

    def __init__(self, *batches: list[int]) -> None:
        self.rest = list(batches)
        self.asked = 0

    def next_indices(self) -> list[int] | None:
        self.asked += 1
        return self.rest.pop(0) if self.rest else None

    def batches(self) -> int:
        return self.asked + len(self.rest)


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class NamedLoader(DataLoader[Any]):
    def __init__(self, dataset: Dataset[Any], label: str, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        self.label = label


def test_an_epoch_is_the_same_permutation_everywhere_and_another_one_each_time() -> None:
    first = permutation(7, 0, 50, True).clone()

    assert sorted(first.tolist()) == list(range(50))
    assert not torch.equal(first, permutation(7, 1, 50, True))
    assert not torch.equal(first, permutation(8, 0, 50, True))
    torch.manual_seed(123)
    permutation.cache_clear()
    assert torch.equal(first, permutation(7, 0, 50, True))


def test_without_shuffling_positions_are_indices() -> None:
    assert permutation(7, 3, 5, False).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("loader", "facts"),
    [
        (DataLoader(NUMBERS, 4), LoaderFacts(10, 4, False, False)),
        (DataLoader(NUMBERS, 4, shuffle=True, drop_last=True), LoaderFacts(10, 4, True, True)),
        (DataLoader(NUMBERS, sampler=RandomSampler(NUMBERS)), LoaderFacts(10, 1, True, False)),
        (
            DataLoader(NUMBERS, batch_sampler=BatchSampler(RandomSampler(NUMBERS), 3, True)),
            LoaderFacts(10, 3, True, True),
        ),
    ],
)
def test_the_usual_loaders_are_understood(loader: DataLoader[Any], facts: LoaderFacts) -> None:
    assert inspect_loader(loader) == facts


class OwnBatches(BatchSampler):
    pass


@pytest.mark.parametrize(
    ("loader", "complaint"),
    [
        ([1, 2, 3], "a list"),
        (DataLoader(Stream()), "IterableDataset Stream.*map-style"),
        (DataLoader(NUMBERS, num_workers=2), "num_workers=2.*num_workers=0"),
        (DataLoader(NUMBERS, batch_size=None), "batch_size=None"),
        (
            DataLoader(NUMBERS, batch_sampler=OwnBatches(SequentialSampler(NUMBERS), 2, False)),
            "batch sampler OwnBatches",
        ),
        (DataLoader(NUMBERS, sampler=SubsetRandomSampler([1, 2])), "SubsetRandomSampler"),
        (
            DataLoader(NUMBERS, sampler=RandomSampler(NUMBERS, replacement=True)),
            "RandomSampler that we do not know",
        ),
        (
            DataLoader(NUMBERS, sampler=RandomSampler(NUMBERS, num_samples=4)),
            "RandomSampler of 4 of the dataset's 10",
        ),
        (
            DataLoader(NUMBERS, sampler=DistributedSampler(NUMBERS, num_replicas=2, rank=0)),
            "DistributedSampler, which divides by a fixed number",
        ),
        (DataLoader(TensorDataset(torch.empty(0))), "empty"),
    ],
)
def test_other_loaders_are_refused_with_a_cure(loader: object, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        inspect_loader(loader)


def test_the_elastic_loader_yields_what_the_source_says() -> None:
    loader = elastic_loader(DataLoader(NUMBERS, 4, shuffle=True), Script([3, 1], [9, 0, 2]))
    assert [batch[0].tolist() for batch in loader] == [[3, 1], [9, 0, 2]]


def test_the_elastic_loader_does_not_fetch_ahead() -> None:
    source = Script([1], [2], [3])
    batches = iter(elastic_loader(DataLoader(NUMBERS, 4), source))
    assert source.asked == 0
    for i in range(1, 4):
        next(batches)
        assert source.asked == i


def test_the_length_follows_the_source_also_within_an_epoch() -> None:
    source = Script([1], [2])
    loader = elastic_loader(DataLoader(NUMBERS, 4), source)
    batches = iter(loader)
    next(batches)
    assert len(loader) == 2
    source.rest.append([5])
    assert len(loader) == 3


def test_an_elastic_loader_is_left_as_it_is() -> None:
    loader = elastic_loader(DataLoader(NUMBERS, 4, shuffle=True), Script())
    assert elastic_loader(loader, Script([1])) is loader
    assert inspect_loader(loader) == LoaderFacts(10, 4, True, False)


def test_what_does_not_concern_the_order_is_kept() -> None:
    def collate(samples: list[Any]) -> list[Any]:
        return samples

    loader = elastic_loader(DataLoader(NUMBERS, 4, collate_fn=collate), Script())
    assert loader.dataset is NUMBERS
    assert loader.collate_fn is collate


def test_a_subclass_stays_a_subclass_as_lightning_would_keep_it() -> None:
    with _replace_dunder_methods(DataLoader, "dataset"):  # as around train_dataloader()
        given = NamedLoader(NUMBERS, "mine", batch_size=4, shuffle=True)
    loader = elastic_loader(given, Script([4]))

    assert isinstance(loader, NamedLoader)
    assert loader.label == "mine"
    assert [batch[0].tolist() for batch in loader] == [[4]]


def test_positional_arguments_are_kept_apart_from_the_run_s() -> None:
    with _replace_dunder_methods(DataLoader, "dataset"):
        given = DataLoader(NUMBERS, 4, True)
    assert [b[0].tolist() for b in elastic_loader(given, Script([4, 5]))] == [[4, 5]]


def test_a_subclass_that_cannot_be_made_anew_is_refused() -> None:
    class Rigid(DataLoader[Any]):
        def __init__(self) -> None:
            super().__init__(NUMBERS, batch_size=2)

    with pytest.raises(DataError, match="Rigid cannot be made anew"):
        elastic_loader(Rigid(), Script())
