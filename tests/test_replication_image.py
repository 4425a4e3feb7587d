"""State as bytes: what comes back is what went in, and what cannot travel is named."""

from __future__ import annotations

import contextlib
import math
import pathlib
import random
from collections import Counter, OrderedDict, deque
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.fabric.utilities.data import AttributeDict

from lightning_chaos.errors import StateError, WireError
from lightning_chaos.protocol.values import OpId
from lightning_chaos.replication.image import StateImage, assemble, check_sendable
from lightning_chaos.replication.tree import pack, unpack

plain = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 140), 1 << 140)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
keys = st.text() | st.integers() | st.booleans() | st.none() | st.tuples(st.integers(), st.text())
trees = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4).map(OrderedDict)
    ),
    max_leaves=20,
)

TENSORS = {
    "float32": torch.randn(3, 5),
    "bfloat16": torch.randn(7).to(torch.bfloat16),
    "float8": torch.randn(9).to(torch.float8_e4m3fn),
    "complex, conjugate view": torch.randn(4, dtype=torch.complex64).conj(),
    "bool": torch.tensor([True, False, True]),
    "int64": torch.arange(-3, 3),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.empty(0, 3, dtype=torch.int16),
    "transposed": torch.randn(4, 6).t(),
    "strided": torch.randn(10, 10)[::2, 1::3],
    "expanded": torch.randn(3, 1).expand(3, 4),
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "not a number": torch.tensor([math.nan, -0.0, math.inf]),
}


def image_of(shared: object, local: object = None, **arguments: Any) -> StateImage:
    return StateImage.of(shared, local, round=3, operation=OpId(2, 5), **arguments)


def bytes_of(image: StateImage) -> bytearray:
    return bytearray(b"".join(image.read(0, image.manifest.total_bytes)))


def same(a: object, b: object) -> bool:
    """Equal, and of the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        assert isinstance(b, dict)
        return [type(k) for k in a] == [type(k) for k in b] and same(
            list(a.items()), list(b.items())
        )
    if isinstance(a, list | tuple):
        assert isinstance(b, list | tuple)
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@given(trees)
def test_a_tree_comes_back_as_it_was(tree: object) -> None:
    image = image_of(tree)
    assert same(assemble(image.manifest, bytes_of(image)), tree)
    assert same(unpack(pack(tree)), tree)


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_comes_back_bit_for_bit(name: str) -> None:
    tensor = TENSORS[name]
    image = image_of({"before": torch.ones(3), "it": tensor})
    found = assemble(image.manifest, bytes_of(image))["it"]
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    plain = tensor.resolve_conj().contiguous().reshape(-1).view(torch.uint8)
    assert torch.equal(found.contiguous().reshape(-1).view(torch.uint8), plain)
    if name in ("transposed", "channels last"):
        assert found.stride() == tensor.stride()


@pytest.mark.parametrize(
    "value",
    [
        torch.Size([1, 2]),
        torch.bfloat16,
        torch.device("cpu"),
        {1, 2, 3},
        frozenset({"a"}),
        Counter({30: 1}),
        AttributeDict(lr=0.1),
        pathlib.Path("logs/a"),
        2 + 3j,
        np.float64(0.1),
        np.int16(-3),
        np.bool_(True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_other_types_of_training_state_come_back(value: object) -> None:
    found = unpack(pack({"it": value}))["it"]
    assert type(found) is type(value)
    assert found == value


def test_numpy_arrays_and_random_states_come_back() -> None:
    generator = random.Random(3).getstate()
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    found = unpack(pack({"python": generator, "array": array, "torch": torch.get_rng_state()}))
    assert found["python"] == generator
    assert found["array"].dtype == array.dtype
    assert np.array_equal(found["array"], array)
    assert torch.equal(found["torch"], torch.get_rng_state())


def test_an_optimizer_comes_back_so_that_training_goes_on_the_same() -> None:
    def one_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()

    torch.manual_seed(1)
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    optimizers = [torch.optim.AdamW(model.parameters(), amsgrad=True) for model in models]
    one_step(models[0], optimizers[0])
    image = image_of({"model": models[0].state_dict(), "optimizer": optimizers[0].state_dict()})
    found = assemble(image.manifest, bytes_of(image))
    models[1].load_state_dict(found["model"])
    optimizers[1].load_state_dict(found["optimizer"])
    for model, optimizer in zip(models, optimizers, strict=True):
        one_step(model, optimizer)
    digests = {
        image_of({"model": m.state_dict(), "optimizer": o.state_dict()}).digest
        for m, o in zip(models, optimizers, strict=True)
    }
    assert len(digests) == 1


class Color(str):
    pass


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (deque([1]), "type deque"),
        (Color("red"), "type Color"),
        (lambda: None, "type function"),
        (np.array([object()]), "numpy value of object"),
        (torch.eye(2).to_sparse(), "without plain memory"),
        (torch.empty(2, device="meta"), "without plain memory"),
    ],
)
def test_a_value_that_cannot_travel_is_named_by_its_path(value: object, what: str) -> None:
    with pytest.raises(StateError, match=rf"callbacks\.Mine\.queue\[1\].*{what}"):
        image_of({"callbacks": {"Mine": {"queue": [0, value]}}})


@pytest.mark.parametrize(
    "tree", ["caf\udce9", {"caf\udce9": 1}, {"caf\udce9"}, [pathlib.Path("caf\udce9")]]
)
def test_text_that_has_no_encoding_is_named(tree: object) -> None:
    with pytest.raises(StateError, match=r"^local holds 'caf\\udce9', which has no encoding"):
        pack(tree, "local")


def test_whether_a_state_can_be_sent_is_seen_without_copies_of_its_tensors() -> None:
    check_sendable({"weight": torch.zeros(1).expand(1 << 44)}, {})
    with pytest.raises(StateError, match="without plain memory"):
        check_sendable({"weight": torch.empty(2, device="meta")}, {})


def test_a_tree_that_holds_itself_is_refused() -> None:
    tree: list[object] = []
    tree.append(tree)
    with pytest.raises(StateError, match="refers to itself"):
        image_of({"it": tree})


def test_a_local_part_too_large_for_a_message_is_refused() -> None:
    with pytest.raises(StateError, match="local part"):
        image_of({}, torch.zeros(9 << 20, dtype=torch.uint8))


def test_cpu_tensors_are_not_copied_when_an_image_is_made() -> None:
    weight = torch.zeros(1000)
    image = image_of({"weight": weight})
    weight.fill_(1)
    assert torch.equal(assemble(image.manifest, bytes_of(image))["weight"], weight)


def test_what_is_assembled_does_not_hang_on_the_buffer() -> None:
    image = image_of({"weight": torch.ones(4)})
    buffer = bytes_of(image)
    found = assemble(image.manifest, buffer)
    buffer[:] = bytes(len(buffer))
    assert torch.equal(found["weight"], torch.ones(4))


def test_the_digest_is_that_of_the_shared_bits_alone() -> None:
    tree = {"a": torch.tensor([1.0, 2.0]), "b": 3}
    first = StateImage.of(tree, "mine", round=1, operation=OpId(0, 1))
    again = StateImage.of(dict(tree), "other", round=9, operation=OpId(8, 1))
    assert first.digest == again.digest
    assert image_of({**tree, "a": torch.tensor([1.0, 2.0000002])}).digest != first.digest
    assert image_of({**tree, "b": 3.0}).digest != first.digest


def test_strides_of_dimensions_of_size_one_do_not_show_in_the_digest() -> None:
    kernel = torch.randn(4, 3, 1, 2).to(memory_format=torch.channels_last)
    odd = kernel.as_strided(kernel.shape, (kernel.stride(0), kernel.stride(1), 999, 3))
    assert torch.equal(odd, kernel)
    assert image_of({"k": odd}).digest == image_of({"k": kernel}).digest


def test_any_span_of_the_byte_space_can_be_read() -> None:
    image = image_of({str(i): torch.full((i,), i, dtype=torch.uint8) for i in range(0, 200, 7)})
    whole = bytes_of(image)
    rng = random.Random(5)
    for _ in range(300):
        offset = rng.randrange(len(whole))
        length = rng.randrange(len(whole) - offset + 1)
        assert b"".join(image.read(offset, length)) == whole[offset : offset + length]
    with pytest.raises(StateError):
        image.read(len(whole), 1)


def test_a_manifest_that_makes_no_sense_is_refused() -> None:
    manifest = image_of({"w": torch.randn(100)}, shard_bytes=128).manifest
    manifest.check(1 << 20)
    replace = msgspec.structs.replace
    for nonsense in (
        replace(manifest, total_bytes=manifest.total_bytes + 1000),
        replace(manifest, total_bytes=0),
        replace(manifest, tensor_bytes=manifest.total_bytes),
        replace(manifest, shard_bytes=0),
        replace(manifest, shard_bytes=1 << 30, digests=manifest.digests[:1]),
        replace(manifest, digests=manifest.digests[:-1]),
        replace(manifest, digests=(b"short", *manifest.digests[1:])),
        replace(manifest, root=bytes(16)),
    ):
        with pytest.raises(WireError):
            nonsense.check(1 << 20)
    with pytest.raises(WireError, match="at most 100"):
        manifest.check(100)


@pytest.mark.parametrize(
    "structure",
    [
        ["tensor", "float32", [1 << 60], [], 0],
        ["tensor", "float32", [1 << 40, 1 << 40], [], 0],
        ["tensor", "float32", [4], [], 60],
        ["tensor", "float32", [4], [], -4],
        ["tensor", "float32", [2, 2], [0, 0], 0],
        ["tensor", "object", [1], [], 0],
        ["tensor", "float32", "ab", [], 0],
        ["array", "O", [1], 0],
        ["array", "<f4", [1 << 60], 0],
        ["array", "<f4", [-1, -4], 0],
        ["scalar", "<f4", b""],
        ["dict", "key without value"],
        ["dict", ["list"], 1],
        ["exec", "something"],
        [["list"]],
        [],
    ],
)
def test_a_malformed_structure_is_refused(structure: object) -> None:
    blob = msgspec.msgpack.encode([msgspec.msgpack.encode(structure), bytes(64)])
    with pytest.raises(StateError):
        unpack(blob)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_harmless(data: bytes) -> None:
    with contextlib.suppress(StateError):
        unpack(msgspec.msgpack.encode([data, bytes(64)]))


def test_a_structure_nested_without_end_is_refused() -> None:
    blob = msgspec.msgpack.encode([b"\x91" * 5000, b""])
    with pytest.raises(StateError):
        unpack(blob)
