"""Data: Python values as JSON and back, exactly, without ever running anything that came from outside.

What JSON has is itself; the rest of the built-in types is an object with the one key ``$`` more than data can have::

    b"x" -> {"$": "bytes", "v": "eA=="}
    (1, 2) -> {"$": "tuple", "v": [1, 2]}    {1: 2} -> {"$": "dict", "v": [[1, 2]]}

This file is sent to sites together with a function, so it imports only the standard library.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
from typing import Any

MOST_DEPTH = 200


class NotDataError(TypeError):
    """The value is not made of built-in types only (or is nested too deeply, or contains itself)."""


def dumps(value: Any) -> str:
    """``value`` as JSON. Raises NotDataError."""
    return json.dumps(_encoded(value, MOST_DEPTH), allow_nan=False)


def loads(text: str | bytes) -> Any:
    """What `dumps` was given. Raises ValueError for anything that `dumps` does not write."""
    try:
        return _decoded(json.loads(text), MOST_DEPTH)
    except (RecursionError, TypeError, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(f"this is no data: {error}") from None


def _encoded(value: Any, depth: int) -> Any:
    if depth == 0:
        raise NotDataError("nested too deeply")
    kind = type(value)
    if value is None or kind in (bool, str, int):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$": "float", "v": repr(value)}
    if kind is list:
        return [_encoded(each, depth - 1) for each in value]
    if kind is dict:
        return _encoded_dict(value, depth)
    if kind in _ENCODE:
        name, make = _ENCODE[kind]
        return {"$": name, "v": make(value)}
    if kind in (tuple, set, frozenset):
        return {"$": kind.__name__, "v": [_encoded(each, depth - 1) for each in value]}
    raise NotDataError(f"{kind.__module__}.{kind.__qualname__} is not data")


def _encoded_dict(value: dict[Any, Any], depth: int) -> Any:
    if all(type(key) is str for key in value) and "$" not in value:
        return {key: _encoded(each, depth - 1) for key, each in value.items()}
    pairs = [[_encoded(key, depth - 1), _encoded(each, depth - 1)] for key, each in value.items()]
    return {"$": "dict", "v": pairs}


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


_ENCODE: dict[type, tuple[str, Any]] = {
    bytes: ("bytes", _base64),
    bytearray: ("bytearray", _base64),
    complex: ("complex", lambda value: [repr(value.real), repr(value.imag)]),
    dt.datetime: ("datetime", dt.datetime.isoformat),
    dt.date: ("date", dt.date.isoformat),
    dt.time: ("time", dt.time.isoformat),
    dt.timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
}


def _decoded(tree: Any, depth: int) -> Any:
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(tree, list):
        return [_decoded(each, depth - 1) for each in tree]
    if not isinstance(tree, dict):
        return tree
    if "$" not in tree:
        return {key: _decoded(each, depth - 1) for key, each in tree.items()}
    if len(tree) != 2:
        raise ValueError("an object with `$` has `v` and nothing else")
    return _DECODE[tree["$"]](tree["v"], depth - 1)


def _items(tree: Any, depth: int) -> list[Any]:
    if not isinstance(tree, list):
        raise TypeError("a list is expected")
    return [_decoded(each, depth) for each in tree]


_DECODE: dict[str, Any] = {
    "float": lambda tree, _: float(tree),
    "bytes": lambda tree, _: base64.b64decode(tree, validate=True),
    "bytearray": lambda tree, _: bytearray(base64.b64decode(tree, validate=True)),
    "complex": lambda tree, _: complex(float(tree[0]), float(tree[1])),
    "datetime": lambda tree, _: dt.datetime.fromisoformat(tree),
    "date": lambda tree, _: dt.date.fromisoformat(tree),
    "time": lambda tree, _: dt.time.fromisoformat(tree),
    "timedelta": lambda tree, _: dt.timedelta(*map(int, tree)),
    "tuple": lambda tree, depth: tuple(_items(tree, depth)),
    "set": lambda tree, depth: set(_items(tree, depth)),
    "frozenset": lambda tree, depth: frozenset(_items(tree, depth)),
    "dict": lambda tree, depth: {key: value for key, value in _items(tree, depth)},  # noqa: C416 - pairs are lists
}
