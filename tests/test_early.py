"""Buckets of gradients leave while backward goes on, with the bits they would have at its end."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_chaos.collective.early import Spans
from lightning_chaos.collective.flat import Buckets
from lightning_chaos.collective.reducer import Contribution, Reducer
from lightning_chaos.errors import ConfigError

BUCKET_BYTES = 64


class Trainee:
    """A model, its reducer, and what left it early."""

    def __init__(self, model: nn.Module, bucket_bytes: int = BUCKET_BYTES) -> None:
        self.model = model
        self.reducer = Reducer(model, bucket_bytes=bucket_bytes)
        self.story: list[object] = []
        """``begin``, buckets as they leave, and names of modules as backward reaches them."""
        self.left: dict[int, Tensor] = {}
        """Values of each bucket when it left."""
        for name, module in model.named_children():
            module.register_forward_hook(lambda *io, name=name: self.watch(name, io[-1]))  # type: ignore[misc]

    def watch(self, name: str, output: Tensor) -> None:
        """Tell when backward reaches this output of a module."""
        if output.requires_grad:
            output.register_hook(lambda _: self.story.append(name))

    def expect(self, weight: float, divided_by: float | None = None) -> None:
        self.story.clear()
        self.left.clear()

        def begin(vector: Tensor, buckets: Buckets) -> None:
            self.story.append("begin")
            self.given = vector, buckets

        def give(bucket: int) -> None:
            self.story.append(bucket)
            assert bucket not in self.left
            vector, buckets = self.given
            offset, length = buckets[bucket]
            self.left[bucket] = vector[offset // 4 : (offset + length) // 4].clone()

        self.reducer.expect(weight, divided_by, begin, give)

    def check(self, contribution: Contribution) -> None:
        """What has left is what the contribution holds."""
        for bucket, values in self.left.items():
            offset, length = contribution.buckets[bucket]
            now = contribution.vector[offset // 4 : (offset + length) // 4]
            assert torch.equal(now, values)


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 5), nn.Linear(5, 3))


def samples(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def loss_of(model: nn.Module, inputs: Tensor) -> Tensor:
    loss: Tensor = model(inputs).square().mean()
    return loss


def one_round(
    trainee: Trainee,
    *batches: Tensor,
    weight: float = 3.0,
    loss: Callable[[nn.Module, Tensor], Tensor] = loss_of,
) -> Contribution:
    """Backward of every micro-batch, the last one expected."""
    trainee.model.zero_grad()
    for batch in batches[:-1]:
        loss(trainee.model, batch).backward()
    trainee.expect(weight)
    loss(trainee.model, batches[-1]).backward()
    contribution = trainee.reducer.contribution(weight)
    trainee.check(contribution)
    return contribution


def tried(model: nn.Module) -> Trainee:
    """A trainee whose first backward, which gives nothing, is over."""
    trainee = Trainee(model)
    one_round(trainee, samples(2))
    return trainee


def test_the_first_backward_only_tries() -> None:
    trainee = Trainee(layers())
    one_round(trainee, samples(2))
    assert trainee.story == ["2", "1", "0"]


def test_buckets_leave_as_backward_completes_them_the_first_before_the_last_gradient() -> None:
    trainee = tried(layers())
    one_round(trainee, samples(4))
    # 18 + 50 + 63 values in buckets of 16: one within the last layer, then those of the second
    assert trainee.story[:3] == ["2", "begin", 0]
    assert trainee.story.index(0) < trainee.story.index("1") < trainee.story.index(1)
    assert trainee.story.index(3) < trainee.story.index("0")
    assert sorted(trainee.left) == list(range(9))


@pytest.mark.parametrize("divided_by", [None, 8.0])
def test_the_contribution_is_the_same_bits_as_after_backward(divided_by: float | None) -> None:
    early, late = tried(layers()), Trainee(layers())
    for seed in range(3):
        contributions = []
        for trainee in (early, late):
            trainee.model.zero_grad()
            if trainee is early:
                trainee.expect(3.0, divided_by)
            loss_of(trainee.model, samples(4, seed)).backward()
            contributions.append(trainee.reducer.contribution(3.0, divided_by))
        early.check(contributions[0])
        assert early.left
        assert torch.equal(contributions[0].vector, contributions[1].vector)
        assert contributions[0].used == contributions[1].used


def test_of_accumulated_micro_batches_only_the_last_one_sends() -> None:
    trainee, late = tried(layers()), Trainee(layers())
    batches = [samples(4, seed) for seed in range(3)]
    early = one_round(trainee, *batches)
    for batch in batches:
        loss_of(late.model, batch).backward()
    assert trainee.story[0] == "2"  # nothing before
    assert torch.equal(early.vector, late.reducer.contribution(3.0).vector)


def test_a_bucket_with_an_unused_parameter_waits_for_the_end_of_backward() -> None:
    trainee = tried(layers())

    def without_the_middle(model: nn.Module, inputs: Tensor) -> Tensor:
        assert isinstance(model, nn.Sequential)
        loss: Tensor = model[0](inputs)[:, :5].square().mean() + model[2](inputs[:, :5]).mean()
        return loss

    early = one_round(trainee, samples(4), loss=without_the_middle)
    late = Trainee(layers())
    without_the_middle(late.model, samples(4)).backward()
    contribution = late.reducer.contribution(3.0)
    assert torch.equal(early.vector, contribution.vector)
    assert early.used == contribution.used
    # values 18 to 67 are the middle layer's, in buckets 1 to 4
    assert sorted(trainee.left) == [0, 5, 6, 7, 8]


def test_a_member_without_weight_gives_nothing_early() -> None:
    trainee = tried(layers())
    contribution = one_round(trainee, samples(4), weight=0.0)
    assert trainee.story == ["2", "1", "0"]
    assert not contribution.vector.any()


def test_a_model_of_one_bucket_gives_it_at_the_end() -> None:
    trainee = Trainee(layers(), bucket_bytes=131 * 4)
    for _ in range(2):
        one_round(trainee, samples(4))
        assert trainee.story == ["2", "1", "0"]


def test_vectors_in_flight_are_left_alone_by_the_next_backward() -> None:
    trainee = tried(layers())
    first = one_round(trainee, samples(4))
    kept = first.vector.clone()
    one_round(trainee, samples(4, seed=5))
    assert torch.equal(first.vector, kept)


class Shared(nn.Module):
    """One layer run twice, each time in a checkpointed segment of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.requires_grad_()
        for _ in range(2):
            inputs = checkpoint(self.layer, inputs, use_reentrant=True)
        return inputs


def test_where_backward_comes_back_to_a_parameter_nothing_leaves_early(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainee, late = Trainee(Shared()), Trainee(Shared())
    with caplog.at_level(logging.INFO):
        for seed in range(3):
            early = one_round(trainee, samples(4, seed))
            assert not trainee.left
            late.model.zero_grad()
            loss_of(late.model, samples(4, seed)).backward()
            assert torch.equal(early.vector, late.reducer.contribution(3.0).vector)
    (record,) = caplog.records
    assert "that of layer.bias changes" in record.getMessage()


def test_a_gradient_that_changes_after_it_was_sent_is_an_error_that_names_it() -> None:
    model = layers()
    for change in (lambda g: g.add_(1.0), None):
        trainee = tried(copy.deepcopy(model))
        trainee.expect(3.0)
        loss_of(trainee.model, samples(4)).backward()
        weight = trainee.model.get_parameter("1.weight")
        assert weight.grad is not None
        if change is None:
            weight.grad = None
        else:
            change(weight.grad)
        with pytest.raises(ConfigError, match=r"The gradient of 1\.weight changed after backward"):
            trainee.reducer.contribution(3.0)


def test_a_user_hook_that_changes_gradients_from_the_start_keeps_its_say() -> None:
    trainee = Trainee(layers())

    def double(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.mul_(2.0)

    bias = trainee.model.get_parameter("2.bias")
    bias.register_post_accumulate_grad_hook(double)  # runs after the reducer's
    for _ in range(2):
        contribution = one_round(trainee, samples(4))
        grad = trainee.model.get_parameter("2.bias").grad
        assert grad is not None
        assert torch.equal(contribution.vector[:3], grad * 3.0)
        assert not trainee.left


def test_a_sparse_gradient_is_refused_as_ever() -> None:
    model = nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Linear(4, 4))
    trainee = Trainee(model)
    trainee.expect(1.0)
    model(torch.tensor([1, 3])).sum().backward()
    with pytest.raises(ConfigError, match=r"0\.weight is sparse"):
        trainee.reducer.contribution(1.0)


def test_spans_say_which_buckets_each_parameter_lies_in() -> None:
    spans = Spans([4, 0, 20, 16, 1], 64)
    assert spans.of == [range(1), range(0), range(2), range(1, 3), range(2, 3)]
    assert spans.parameters == [2, 2, 2]
    assert Spans([], 64).parameters == []
