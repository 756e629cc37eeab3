"""Values come back from a checkpoint with their types, or are left out by name."""

import datetime
import json
import threading
from collections import OrderedDict, deque
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from colabcnn.encoding import MAX_DEPTH, Encoder, decode
from colabcnn.errors import MALFORMED

DTYPES = [
    "bool",
    "int8",
    "uint16",
    "int64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "M8[s]",
    "m8[ms]",
    "U3",
    "S2",
]


def round_trip(value):
    encoder = Encoder()
    encoded = json.loads(json.dumps(encoder.encode(value, "value"), allow_nan=False))
    return decode(encoded, encoder.arrays), encoder.left_out


def same(one, other):
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one == other or (one != one and other != other)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.binary(),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.sampled_from(DTYPES).map(lambda dtype: np.array([[1, 0, 1]]).astype(dtype)),
    st.sampled_from(DTYPES).map(lambda dtype: np.array(1).astype(dtype)),
    st.sampled_from(["bool", "int8", "uint64", "float16", "float64", "complex128", "M8[s]"]).map(
        lambda dtype: np.array(1).astype(dtype)[()]
    ),
)
HASHABLE = st.one_of(st.integers(), st.text(), st.tuples(st.integers(), st.text()))
NOT_FINITE = [float("nan"), float("inf"), -float("inf"), complex("nan-infj"), np.float16("nan"), np.array(np.inf)]
PYTHONS = [b"\0", 1j, datetime.date.max, datetime.time.max, datetime.datetime.max, datetime.timedelta(-1, 5, 7), 2**70]
CONTAINERS = [(), (1, (2,)), {1, "a"}, frozenset({(1, "a")}), {1: 2, "1": 3}, {(1, "a"): {}}, {"dict": 1}]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        SCALARS,
        lambda members: st.one_of(
            st.lists(members),
            st.lists(members).map(tuple),
            st.dictionaries(HASHABLE, members),
            st.sets(HASHABLE),
            st.frozensets(HASHABLE),
        ),
        max_leaves=8,
    )
)
@example(NOT_FINITE)
@example(PYTHONS)
@example(CONTAINERS)
def test_value_comes_back_with_its_type(value):
    back, left_out = round_trip(value)
    assert same(value, back)
    assert left_out == {}


def test_path_comes_back():
    assert round_trip([Path("a/b")]) == ([Path("a/b")], {})


def test_variable_and_tensor_come_back_as_arrays():
    import keras

    variable = keras.Variable(np.ones((2, 1)), dtype="float32")
    back, left_out = round_trip([variable, keras.ops.ones(()), keras.ops.cast(variable, "bfloat16")])
    assert [(array.shape, array.dtype.name) for array in back] == [
        ((2, 1), "float32"),
        ((), "float32"),
        ((2, 1), "float32"),
    ]
    assert left_out == {}


longer_than_double = pytest.mark.skipif(np.longdouble(1).itemsize == 8, reason="a long double is a double here")


class Pair(NamedTuple):
    one: int


class ListAndArray(list):
    def __array__(self, *arguments, **options):
        return np.ones(2)


class FailingArray:
    def __array__(self, *arguments, **options):
        raise RuntimeError("it requires a gradient")


@pytest.mark.parametrize(
    "value",
    [
        object(),
        threading.Lock(),
        lambda: None,
        np.array([object()]),
        iter([]),
        IntEnum("Level", ["LOW"])(1),
        Pair(1),
        OrderedDict(a=1),
        deque([1]),
        ListAndArray([1, 2]),
        FailingArray(),
        pytest.param(np.longdouble(1), marks=longer_than_double),
        pytest.param(np.ones(2, np.longdouble), marks=longer_than_double),
        pytest.param(10**5000, id="int of 5,000 digits"),
    ],
)
def test_other_value_is_left_out_by_its_path(value):
    back, left_out = round_trip({"kept": 1, "log": [2, value]})
    assert back == {"kept": 1, "log": [2, None]}
    assert left_out == {"value.log[1]": type(value).__name__}


def test_list_that_holds_itself_ends():
    value = [1]
    value.append(value)
    _, left_out = round_trip(value)
    assert set(left_out.values()) == {"int", "list"}


class HashableArray:
    """As a complex tensor of PyTorch."""

    def __array__(self, *arguments, **options):
        return np.ones(2, np.complex64)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ([range(2)], "range"),
        ([range(2), range(3)], "range"),
        ([(1, range(2))], "range"),
        ([HashableArray()], "HashableArray"),
        ([(1, HashableArray())], "tuple"),
    ],
)
def test_keys_and_members_of_sets_that_would_be_others_are_left_out(keys, kind):
    assert round_trip({"kept": 1, **dict.fromkeys(keys, 2)}) == ({"kept": 1}, {"value (a key)": kind})
    assert round_trip({"kept", *keys}) == ({"kept"}, {"value (a member)": kind})


@pytest.mark.parametrize("innermost", [np.float32(1), 1 + 2j, 3])
def test_value_in_the_deepest_list_comes_back(innermost):
    value = innermost
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert round_trip(value) == (value, {})


@pytest.mark.parametrize(
    "encoded",
    [
        {"array": 7},
        {"array": 0, "float": "1"},
        {"scalar": ["O", 1]},
        {"scalar": ["(,f4", 1]},
        {"raw": ["2i4,f", [1], "AAAA"]},
        {"raw_scalar": [7, [], ""]},
        {"raw": ["O", [1], "AAAAAAAAAAA="]},
        {"unknown": 1},
        {"date": 5},
        {"timedelta": [10**10, 0, 0]},
        {},
        json.loads("[" * 500 + "]" * 500),
    ],
)
def test_altered_text_is_refused(encoded):
    with pytest.raises(MALFORMED):
        decode(encoded, [])
