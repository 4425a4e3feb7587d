"""Values as they may come over the wire: what a type lets through, and numbers that it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as types

Plain = Any
"""What MessagePack knows: numbers, strings, bytes, lists, dicts."""
ROOM = 2**61
"""Larger numbers leave little room to count on from them; a member that tells one is a traitor."""
HOSTILE = (-(2**63), -2, 2**31, 2**62 + 1, 2**64 - 1, math.nan, math.inf, -1.0, None, "", b"", [])


def plain_values(kind: Any, known: Callable[[Any], st.SearchStrategy[Plain] | None]) -> Any:
    """Whatever decodes as this type, but for what a class itself finds wrong with its fields.

    Args:
        kind: a type that msgspec knows.
        known: better values for some classes, strings or bytes, None for the rest.
    """
    return _of(types.type_info(kind), known)


def _of(info: Any, known: Callable[[Any], st.SearchStrategy[Plain] | None]) -> Any:
    def inner(part: Any) -> Any:
        return _of(part, known)

    if (better := known(getattr(info, "cls", type(info)))) is not None:
        return better
    match info:
        case types.IntType():
            least = -(2**63) if info.ge is None else info.ge
            most = 2**63 - 1 if info.le is None else info.le
            most = most if info.lt is None else info.lt - 1
            most = min(most, ROOM)
            few = st.integers(max(least, -1), min(most, 8))
            return few | st.sampled_from((least, most))
        case types.FloatType():
            if info.ge is None:
                return st.floats()
            return st.floats(min_value=info.ge, max_value=info.le, allow_nan=False)
        case types.EnumType():
            return st.sampled_from([member.value for member in info.cls])
        case types.BoolType():
            return st.booleans()
        case types.NoneType():
            return st.none()
        case types.StrType():
            return st.text(max_size=8)
        case types.BytesType():
            return st.binary(max_size=32)
        case types.UnionType():
            return st.one_of([inner(part) for part in info.types])
        case types.EnumType():
            return st.sampled_from([each.value for each in info.cls])
        case types.VarTupleType():
            return st.lists(inner(info.item_type), max_size=4)
        case types.TupleType():
            return st.tuples(*map(inner, info.item_types)).map(list)
        case types.DictType():
            return st.dictionaries(inner(info.key_type), inner(info.value_type), max_size=3)
        case types.StructType(array_like=True):
            tag = [st.just(info.tag)] if info.tag is not None else []
            return st.tuples(*tag, *(inner(f.type) for f in info.fields)).map(list)
    raise TypeError(f"no values for {info}")


@st.composite
def spoilt(draw: st.DrawFn, plain: st.SearchStrategy[Plain]) -> Plain:
    """One of these values with one part of it replaced by something that may not be there."""
    value = draw(plain)
    place = value
    while True:
        index = draw(st.integers(0, len(place) - 1))
        if not isinstance(place[index], list) or not place[index] or draw(st.booleans()):
            place[index] = draw(st.sampled_from(HOSTILE))
            return value
        place = place[index]


def as_plain(value: msgspec.Struct) -> Plain:
    """The same value as MessagePack knows it."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))
