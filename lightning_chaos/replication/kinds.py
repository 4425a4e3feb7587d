"""The closed set of types that may lie in a tree of state, and the names they travel under."""

from __future__ import annotations

import importlib
import sys
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from lightning_chaos.errors import StateError

PLAIN = (type(None), bool, float, str, bytes)
"""Stand for themselves; so does an int that MessagePack can hold."""
SEQUENCES: dict[type, str] = {list: "list", tuple: "tuple", torch.Size: "size"}
SETS: dict[type, str] = {set: "set", frozenset: "frozenset"}
BUILDERS: dict[str, type[Any]] = {tag: kind for kind, tag in (SEQUENCES | SETS).items()}
"""Make a sequence or a set of its items."""
DTYPES: dict[str, torch.dtype] = {
    str(value).removeprefix("torch."): value
    for value in vars(torch).values()
    if isinstance(value, torch.dtype)
    and str(value)
    .removeprefix("torch.")
    .startswith(("float", "bfloat", "int", "uint", "complex", "bool"))
}
_MAPPINGS: dict[type, str] = {dict: "dict", OrderedDict: "ordered", Counter: "counter"}
_ATTRIBUTE_DICTS = {
    "attributes": "lightning.fabric.utilities.data",
    "attributes_twin": "lightning_fabric.utilities.data",
}


def mapping_tag(kind: type) -> str | None:
    """The name of a type of mappings, None if it is none or cannot travel."""
    if kind.__name__ == "AttributeDict":
        return next(
            (t for t, module in _ATTRIBUTE_DICTS.items() if kind.__module__ == module), None
        )
    return _MAPPINGS.get(kind)


def mapping(tag: str, pairs: Iterable[tuple[Any, Any]]) -> Any:
    """A mapping of the type of that name.

    Raises:
        KeyError: there is none.
    """
    if tag in _ATTRIBUTE_DICTS:
        module = _ATTRIBUTE_DICTS[tag]
        found = sys.modules.get(module) or importlib.import_module(module)
        return found.AttributeDict(pairs)
    if tag == "counter":
        return Counter(dict(pairs))
    return {"dict": dict, "ordered": OrderedDict}[tag](pairs)


def dtype_name(dtype: torch.dtype) -> str:
    """As in :data:`DTYPES`, which may lack it."""
    return str(dtype).removeprefix("torch.")


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The dtype of that name.

    Raises:
        StateError: values of it are no plain numbers.
        TypeError: there is none.
    """
    dtype = np.dtype(name)
    if dtype.hasobject or dtype.names is not None:
        raise StateError(f"received state holds numpy values of {dtype}")
    return dtype
