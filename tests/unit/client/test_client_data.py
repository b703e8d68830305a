"""Values as data and back: exact, bounded, and nothing runs."""

import datetime as dt
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.client import data

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.complex_numbers(allow_nan=False),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.timedeltas(),
)
hashable = st.recursive(atoms, lambda some: st.tuples(some, some) | st.frozensets(some, max_size=3), max_leaves=5)
values = st.recursive(
    hashable,
    lambda some: (
        st.lists(some, max_size=4)
        | st.tuples(some)
        | st.dictionaries(st.text(), some, max_size=4)
        | st.dictionaries(hashable, some, max_size=4)
    ),
    max_leaves=20,
)


@given(values)
def test_what_is_data_comes_back_equal_and_of_the_same_type(value):
    back = data.loads(data.dumps(value))
    assert back == value
    assert type(back) is type(value)


def test_what_json_cannot_say_comes_back():
    assert math.isnan(data.loads(data.dumps(math.nan)))
    assert data.loads(data.dumps([math.inf, -math.inf])) == [math.inf, -math.inf]
    assert data.loads(data.dumps({"$": 1, "v": 2})) == {"$": 1, "v": 2}
    assert data.loads(data.dumps(bytearray(b"x"))) == bytearray(b"x")
    zone = dt.timezone(dt.timedelta(hours=8))
    assert data.loads(data.dumps(dt.datetime(2026, 1, 1, tzinfo=zone))).utcoffset() == dt.timedelta(hours=8)


@pytest.mark.parametrize("value", [range(3), object(), type, Exception("x"), len, {"a": {1, (object(),)}}])
def test_everything_else_is_not_data(value):
    with pytest.raises(data.NotDataError):
        data.dumps(value)


def test_a_value_that_contains_itself_is_not_data():
    itself = []
    itself.append(itself)
    with pytest.raises(data.NotDataError):
        data.dumps(itself)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"$": "tuple"}',
        '{"$": "object", "v": 1}',
        '{"$": ["x"], "v": 1}',
        '{"$": "tuple", "v": 1}',
        '{"$": "bytes", "v": "%"}',
        '{"$": "set", "v": [[]]}',
        '{"$": "datetime", "v": 3}',
        '{"$": "dict", "v": [[1]]}',
        "[" * 100_000,
        json.dumps({"$": "timedelta", "v": [10**12]}),
    ],
)
def test_what_dumps_does_not_write_is_refused(text):
    with pytest.raises(ValueError):
        data.loads(text)
