"""Canonical JSON: integers, text, booleans, lists and objects, sorted and compact, in exactly one form.

With integers below 2^53 and ASCII names this form is that of RFC 8785, at the speed of a plain encoder. Reading
is strict: whatever another reader could understand differently is refused (RFC 7493), and the refusal says what it is.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec

from tieline.model.quantity import MAX_INTEGER
from tieline.model.record import MAX_RECORD_DEPTH
from tieline.registry.rules import refused

Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
SHALLOW = 5  # levels that the typed decoder knows; its type doubles with each, so that deeper trees are walked


def _values(depth: int) -> Any:
    """The type of what may be nested ``depth`` levels deep: the decoder itself holds every bound but that on names."""
    inner: Any = str | bool | Integer
    for _ in range(depth):
        inner = str | bool | Integer | list[inner] | dict[str, inner]
    return inner


_DECODER = msgspec.json.Decoder(_values(SHALLOW))
_ANY_DECODER = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder(order="sorted")


def encoded(value: Any, part: str) -> bytes:
    """The one form of ``value`` (structs become objects); raises `record_refused` when it has none."""
    try:
        data = _ENCODER.encode(value)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise refused("json_syntax", part=part, why=str(error)[:200]) from None
    decoded(data, part)
    return data


def decoded(data: bytes, part: str) -> Any:
    """Read ``data`` and prove that it is the one form; raises `record_refused` with the rule that it breaks."""
    try:
        try:
            tree = _DECODER.decode(data)
        except msgspec.ValidationError:
            tree = _ANY_DECODER.decode(data)
            if not _is_bounded(tree, MAX_RECORD_DEPTH):
                raise
        is_canonical = _ENCODER.encode(tree) == data
    except (msgspec.MsgspecError, ValueError, RecursionError):
        is_canonical = False
    if not is_canonical:
        _explain(data, part)
        raise refused("json_form", part=part)
    if b"\\u0000" in data:
        check_nul(data, part)
    if not data.isascii():
        check_names(tree, part)
    return tree


def _is_bounded(tree: Any, depth: int) -> bool:
    """Whether ``tree`` holds nothing but what a record may hold, nested at most ``depth`` levels deep."""
    kind = type(tree)
    if kind is int:
        return bool(-MAX_INTEGER <= tree <= MAX_INTEGER)
    if kind is list or kind is dict:
        inner = tree.values() if kind is dict else tree
        return depth > 0 and all(_is_bounded(value, depth - 1) for value in inner)
    return kind is str or kind is bool


def check_nul(data: bytes, part: str) -> None:
    """Refuse U+0000, which some stores cut texts at. With escaped backslashes gone, its escape is nothing else."""
    if b"\\u0000" in data.replace(b"\\\\", b""):
        raise refused("json_nul", part=part)


def check_names(tree: Any, part: str) -> None:
    """Refuse names beyond ASCII: RFC 8785 sorts them by UTF-16 units and others by code points."""
    if type(tree) is dict:
        if not "".join(tree).isascii():
            raise refused("json_name", part=part, name=next(name for name in tree if not name.isascii())[:64])
        tree = tree.values()
    elif type(tree) is not list:
        return
    for value in tree:
        if type(value) is dict or type(value) is list:
            check_names(value, part)


def _explain(data: bytes, part: str) -> None:
    """Find out with a slow and careful reader why ``data`` is not canonical; says nothing when only its form is off."""
    if data.startswith(b"\xef\xbb\xbf"):
        raise refused("json_bom", part=part)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise refused("json_utf8", part=part, at=error.start) from None

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for name, value in pairs:
            if name in seen:
                raise refused("json_duplicate", part=part, name=name[:64].encode("utf-8", "replace").decode())
            seen[name] = value
        return seen

    def integer(digits: str) -> int:
        if len(digits) > 17 or abs(int(digits)) > MAX_INTEGER:
            raise refused("json_integer", part=part)
        return int(digits)

    def fraction(digits: str) -> None:
        raise refused("json_float", part=part, number=digits[:40])

    try:
        tree = json.loads(
            text, object_pairs_hook=once, parse_int=integer, parse_float=fraction, parse_constant=fraction
        )
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise refused("json_trailing", part=part, at=error.pos) from None
        raise refused("json_syntax", part=part, why=str(error)) from None
    except RecursionError:
        raise refused("json_depth", part=part, limit=MAX_RECORD_DEPTH) from None
    try:
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise refused("json_syntax", part=part, why="half a surrogate pair") from None
    _explain_values(tree, part)


def _explain_values(tree: Any, part: str) -> None:
    """Name the null or the depth that the decoder's type does not take."""
    level = [[tree]]
    for _ in range(MAX_RECORD_DEPTH + 1):
        below = []
        for node in level:
            for value in node:
                if value is None:
                    raise refused("json_null", part=part)
                if isinstance(value, (dict, list)):
                    below.append(list(value.values()) if isinstance(value, dict) else value)
        level = below
    if level:
        raise refused("json_depth", part=part, limit=MAX_RECORD_DEPTH)
