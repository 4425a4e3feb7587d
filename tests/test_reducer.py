from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_chaos.collective.buffers import BufferMode
from lightning_chaos.collective.layout import check_tiling
from lightning_chaos.collective.reducer import Contribution, Reducer
from lightning_chaos.errors import ConfigError, OperationMismatch, StateError, WireError


def replicas(model: nn.Module, members: int, mode: BufferMode = "mean") -> list[Member]:
    return [Member(copy.deepcopy(model), mode) for _ in range(members)]


class Member:
    """A model and its reducer, as one worker has them."""

    def __init__(self, model: nn.Module, mode: BufferMode = "mean") -> None:
        self.model = model
        self.reducer = Reducer(model, bucket_bytes=64, buffers=mode)

    def backward(self, *micro_batches: Tensor) -> None:
        """Gradients of the mean over all samples of the micro-batches."""
        samples = sum(len(m) for m in micro_batches)
        for inputs in micro_batches:
            loss = self.model(inputs).square().flatten(1).sum(1).mean()
            (loss * len(inputs) / samples).backward()


def mean(parts: Sequence[Contribution], weights: Sequence[float]) -> Tensor:
    """What the roots do: sum in member order, divide by the sum of weights."""
    total = torch.zeros_like(parts[0].vector)
    for part in parts:
        total += part.vector
    return total / sum(weights)


def one_round(members: Sequence[Member], weights: Sequence[float]) -> list[Contribution]:
    """One round with all its operations, as the worker runs them."""
    parts = [m.reducer.contribution(w) for m, w in zip(members, weights, strict=True)]
    assert len({p.buckets for p in parts}) == 1
    check_tiling(parts[0].buckets, parts[0].vector.nbytes)
    result = mean(parts, weights)
    for m in members:
        m.reducer.apply(result, [p.used for p in parts], [p.values for p in parts])
    names = {m.reducer.newly_active([p.buffers for p in parts]) for m in members}
    assert len(names) == 1, "members disagree on what is active"
    fresh = names.pop()
    if fresh:
        extra = [
            m.reducer.extra_contribution(fresh, w) for m, w in zip(members, weights, strict=True)
        ]
        for m in members:
            m.reducer.apply_extra(fresh, mean(extra, weights), [e.values for e in extra])
    return parts


def gradient(model: nn.Module) -> dict[str, Tensor | None]:
    return {n: p.grad for n, p in model.named_parameters()}


def assert_same_gradients(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = gradient(one), gradient(other)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name])


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))


def samples(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sizes", [(5,), (4, 4), (7, 2, 3)])
def test_the_result_is_the_gradient_of_the_mean_over_all_samples(sizes: tuple[int, ...]) -> None:
    alone = Member(perceptron())
    members = replicas(perceptron(), len(sizes))
    batch = samples(sum(sizes))

    alone.backward(batch)
    for member, part in zip(members, batch.split(sizes), strict=True):  # type: ignore[no-untyped-call]
        member.backward(part)
    one_round(members, sizes)

    for member in members:
        assert_same_gradients(member.model, alone.model)


def test_all_members_get_bit_identical_gradients() -> None:
    members = replicas(perceptron(), 3)
    for i, member in enumerate(members):
        member.backward(samples(i + 2, seed=i))
    one_round(members, [2, 3, 4])
    for name, grad in gradient(members[0].model).items():
        assert grad is not None
        assert all(torch.equal(grad, gradient(m.model)[name]) for m in members[1:]), name  # type: ignore[arg-type]


def test_accumulated_micro_batches_count_once_and_together() -> None:
    alone = Member(perceptron())
    members = replicas(perceptron(), 2)
    batch = samples(10)

    alone.backward(batch)
    members[0].backward(batch[:3], batch[3:6], batch[6:7])
    members[1].backward(batch[7:9], batch[9:])
    one_round(members, [7, 3])
    assert_same_gradients(members[1].model, alone.model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    member = Member(nn.Linear(6, 3).to(dtype))
    member.backward(samples(4).to(dtype))
    before = {n: g.clone() for n, g in gradient(member.model).items() if g is not None}
    part = one_round([member], [3])[0]

    assert part.vector.dtype is torch.float32
    for name, grad in gradient(member.model).items():
        assert grad is not None
        assert grad.dtype is dtype
        assert torch.equal(grad, before[name])


class Branches(nn.Module):
    """Uses one of two layers for a batch, and never the third."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.spare = (nn.Linear(6, 2) for _ in range(3))
        self.side = "left"

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.get_submodule(self.side)(x)
        return out


def branches(*sides: str) -> list[Member]:
    torch.manual_seed(0)
    members = replicas(Branches(), len(sides))
    for member, side in zip(members, sides, strict=True):
        assert isinstance(member.model, Branches)
        member.model.side = side
    return members


def test_a_parameter_that_one_member_used_has_a_gradient_at_all() -> None:
    members = branches("left", "right")
    for member in members:
        member.backward(samples(4))
    alone = branches("right")[0]
    alone.backward(samples(4))
    one_round(members, [4, 4])

    for member in members:
        grads = gradient(member.model)
        expected = gradient(alone.model)["right.weight"]
        assert grads["right.weight"] is not None
        assert expected is not None
        torch.testing.assert_close(grads["right.weight"], expected / 2)
        assert grads["left.weight"] is not None


def test_a_parameter_that_no_member_used_keeps_no_gradient() -> None:
    members = branches("left", "left")
    for member in members:
        member.backward(samples(4))
    one_round(members, [4, 4])
    assert all(gradient(m.model)["spare.weight"] is None for m in members)


def test_a_parameter_unused_in_this_round_keeps_the_gradient_of_the_round_before() -> None:
    (member,) = branches("left")
    member.backward(samples(4))
    one_round([member], [4])
    before = gradient(member.model)["left.weight"]
    assert before is not None
    before = before.clone()

    assert isinstance(member.model, Branches)
    member.model.side = "right"
    member.backward(samples(4))
    one_round([member], [4])
    assert torch.equal(gradient(member.model)["left.weight"], before)  # type: ignore[arg-type]


def test_stand_ins_of_an_idle_member_leave_no_trace_even_if_they_are_nan() -> None:
    members = branches("left", "right")
    members[0].backward(samples(4))
    members[1].backward(samples(2) * float("nan"))
    alone = branches("left")[0]
    alone.backward(samples(4))
    one_round(members, [4, 0])

    for member in members:
        assert_same_gradients(member.model, alone.model)
        assert gradient(member.model)["right.weight"] is None


def test_a_nan_that_counts_is_passed_on() -> None:
    members = replicas(perceptron(), 2)
    members[0].backward(samples(4))
    members[1].backward(samples(4) * float("nan"))
    one_round(members, [4, 4])
    assert all(g is not None and g.isnan().all() for g in gradient(members[0].model).values())


def test_a_contribution_survives_the_next_one() -> None:
    (member,) = replicas(perceptron(), 1)
    member.backward(samples(4, seed=1))
    kept = member.reducer.contribution(4)
    before = kept.vector.clone()
    member.backward(samples(4, seed=2))
    following = member.reducer.contribution(4)

    assert torch.equal(kept.vector, before)
    assert following.vector.data_ptr() != kept.vector.data_ptr()
    assert member.reducer.contribution(4).vector.data_ptr() == kept.vector.data_ptr()


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def statistics(member: Member) -> dict[str, Tensor]:
    return {n: b.clone() for n, b in member.model.named_buffers()}


def test_batch_norm_statistics_become_the_weighted_mean_from_the_first_round_on() -> None:
    members = replicas(normed(), 3)
    for turn in range(3):
        for i, member in enumerate(members):
            member.backward(samples(4 + i, seed=10 * turn + i))
        own = [statistics(m) for m in members]
        one_round(members, [4, 5, 6])
        for name in ("1.running_mean", "1.running_var"):
            expected = sum(w * s[name] for w, s in zip([4, 5, 6], own, strict=True)) / 15
            for member in members:
                torch.testing.assert_close(statistics(member)[name], expected)
            assert all(
                torch.equal(statistics(members[0])[name], statistics(m)[name]) for m in members
            )
        assert all(int(statistics(m)["1.num_batches_tracked"]) == turn + 1 for m in members)


def test_an_idle_member_does_not_move_the_statistics() -> None:
    members = replicas(normed(), 2)
    members[0].backward(samples(4))
    members[1].backward(samples(2) * float("nan"))
    own = statistics(members[0])
    one_round(members, [4, 0])
    for member in members:
        torch.testing.assert_close(statistics(member)["1.running_mean"], own["1.running_mean"])


def test_buffers_can_follow_the_oldest_member_exactly() -> None:
    members = replicas(normed(), 2, mode="first")
    for turn in range(2):
        for i, member in enumerate(members):
            member.backward(samples(4 + i, seed=10 * turn + i))
        oldest = statistics(members[0])
        parts = one_round(members, [4, 5])
        assert torch.equal(statistics(members[1])["1.running_var"], oldest["1.running_var"])
        assert parts[0].vector.numel() == sum(p.numel() for p in members[0].model.parameters())


def test_buffers_can_be_left_to_each_member() -> None:
    members = replicas(normed(), 2, mode="local")
    for i, member in enumerate(members):
        member.backward(samples(4, seed=i))
    own = statistics(members[1])
    parts = one_round(members, [4, 4])
    assert torch.equal(statistics(members[1])["1.running_mean"], own["1.running_mean"])
    assert parts[0].buffers == b""


class Table(nn.Module):
    """A linear layer beside a large buffer."""

    table: Tensor

    def __init__(self, values: int) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)
        self.register_buffer("table", torch.ones(values))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def test_a_large_frozen_buffer_is_never_sent() -> None:
    members = replicas(Table(16 << 20), 1)
    for _ in range(2):
        members[0].backward(samples(4))
        parts = one_round(members, [4])
        assert parts[0].vector.numel() == 6 * 2 + 2
        assert parts[0].buffers == b"\0"


@pytest.mark.parametrize("values", [100, 100_000])
def test_a_buffer_is_shared_once_any_member_changes_it(values: int) -> None:
    torch.manual_seed(0)
    members = replicas(Table(values), 2)
    members[1].model.get_buffer("table").add_(2)
    for _ in range(2):
        for member in members:
            member.backward(samples(4))
        one_round(members, [1, 3])
    for member in members:
        assert torch.equal(statistics(member)["table"], torch.full((values,), 2.5))
        assert member.reducer.state_dict() == {"active": ["table"]}


def test_a_buffer_that_is_replaced_counts_as_changed() -> None:
    (member,) = replicas(Table(100_000), 1)
    member.model.table = torch.ones(100_000)
    assert member.reducer.contribution(1).buffers == b"\1"


def test_a_newcomer_takes_the_active_set_over_and_its_loading_changes_nothing() -> None:
    members = replicas(normed(), 1)
    members[0].backward(samples(4))
    one_round(members, [4])
    newcomer = Member(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    newcomer.model.load_state_dict(members[0].model.state_dict())
    newcomer.reducer.load_state_dict(members[0].reducer.state_dict())
    members.append(newcomer)

    assert newcomer.reducer.layout == members[0].reducer.layout
    for i, member in enumerate(members):
        member.model.zero_grad()
        member.backward(samples(4, seed=i))
    parts = one_round(members, [4, 4])
    assert [p.buffers for p in parts] == [b"\0", b"\0"]


def test_loading_a_large_frozen_buffer_does_not_make_it_active() -> None:
    (member,) = replicas(Table(100_000), 1)
    member.model.load_state_dict(Table(100_000).state_dict())
    member.reducer.load_state_dict({"active": []})
    assert member.reducer.contribution(1).buffers == b"\0"


def test_a_state_of_another_model_is_refused() -> None:
    with pytest.raises(StateError, match=r"buffer 1\.running_mean"):
        Reducer(perceptron()).load_state_dict({"active": ["1.running_mean"]})


def test_buckets_are_fixed_and_the_fingerprint_names_everything() -> None:
    model = normed()
    model.get_parameter("0.weight").requires_grad_(False)
    reducer = Reducer(model, bucket_bytes=64)
    assert reducer.layout == ((0, 64), (64, 24))
    names = dict(reducer.fingerprint)
    assert names["0.weight"] == "4x6 float32 frozen"
    assert names["1.running_mean"] == "4 float32 buffer"
    assert names["1.num_batches_tracked"] == "scalar int64 buffer"
    assert names["bucket_bytes"] == "64"


def test_closing_removes_the_hooks() -> None:
    (member,) = replicas(perceptron(), 1)
    member.reducer.close()
    member.backward(samples(4))
    assert member.reducer.contribution(4).used == b"\0"
    assert not any(p._post_accumulate_grad_hooks for p in member.model.parameters())


def test_sparse_gradients_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Embedding(9, 3, sparse=True))
    reducer = Reducer(model)
    F.mse_loss(model(torch.tensor([1, 2])), torch.zeros(2, 3)).backward()  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigError, match=r"gradient of 0\.weight is sparse"):
        reducer.contribution(2)


def test_double_precision_parameters_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"Parameter 2\.bias is torch\.float64"):
        Reducer(perceptron().double())


def test_double_precision_buffers_may_be_frozen_but_not_averaged() -> None:
    (member,) = replicas(Table(3), 1)
    member.model.register_buffer("exact", torch.ones(3, dtype=torch.float64))
    member.reducer = Reducer(member.model)
    assert member.reducer.contribution(1).buffers == b"\0"
    exact = member.model.get_buffer("exact")
    exact.add_(1)
    part = member.reducer.contribution(1)
    with pytest.raises(ConfigError, match=r"Buffer exact is torch\.float64"):
        member.reducer.newly_active([part.buffers])


def test_parameters_without_a_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match="no shape yet"):
        Reducer(nn.Sequential(nn.LazyLinear(3)))


def test_a_parameter_unfrozen_in_training_is_refused_by_name() -> None:
    model = perceptron()
    weight = model.get_parameter("0.weight").requires_grad_(False)
    reducer = Reducer(model)
    weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"Parameter 0\.weight was frozen"):
        reducer.contribution(1)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_number_of_samples_is_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match="weight"):
        Reducer(perceptron()).contribution(weight)


def test_a_result_or_bitmap_of_the_wrong_size_is_refused_and_changes_nothing() -> None:
    (member,) = replicas(perceptron(), 1)
    part = member.reducer.contribution(1)
    with pytest.raises(OperationMismatch):
        member.reducer.apply(part.vector[1:], [part.used])
    with pytest.raises(WireError):
        member.reducer.apply(part.vector, [part.used + b"\0"])
    assert all(g is None for g in gradient(member.model).values())
