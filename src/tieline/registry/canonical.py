"""Canonical JSON: integers, text, booleans, lists and objects, sorted and compact, in exactly one form.

With integers below 2^53 and ASCII names this form is that of RFC 8785, at the speed of a plain encoder. Reading
is strict: whatever another reader could understand differently is refused (RFC 7493), and the refusal says what it is.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tieline.model.quantity import MAX_INTEGER
from tieline.model.record import MAX_RECORD_DEPTH
from tieline.registry.rules import refused

_ENCODER = msgspec.json.Encoder(order="sorted")


class _FloatError(ValueError):
    """A number with a fraction or an exponent."""


def _float(text: str) -> None:
    raise _FloatError(text)


_DECODER = msgspec.json.Decoder(float_hook=_float)


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
        tree = _DECODER.decode(data)
        is_canonical = _ENCODER.encode(tree) == data
    except (msgspec.MsgspecError, ValueError, RecursionError):
        is_canonical = False
    if not is_canonical:
        _explain(data, part)
        raise refused("json_form", part=part)
    check_values(tree, part)
    return tree


def check_values(tree: Any, part: str) -> None:
    """Refuse depth, null, U+0000, integers that some readers round, and names whose order readers dispute."""
    level: list[Any] = [tree] if type(tree) in (dict, list) else [[tree]]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_RECORD_DEPTH:
            raise refused("json_depth", part=part, limit=MAX_RECORD_DEPTH)
        below: list[Any] = []
        for node in level:
            if type(node) is dict:
                names = "".join(node)
                if not names.isascii() or "\0" in names:
                    raise refused("json_name", part=part, name=next(n for n in node if not n.isascii() or "\0" in n))
                node = node.values()
            for value in node:
                kind = type(value)
                if kind is str:
                    if "\0" in value:
                        raise refused("json_nul", part=part)
                elif kind is int:
                    if not -MAX_INTEGER <= value <= MAX_INTEGER:
                        raise refused("json_integer", part=part)
                elif kind is dict or kind is list:
                    below.append(value)
                elif kind is not bool:
                    raise refused("json_null", part=part)
        level = below


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
        if len(digits) > 17:
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
    check_values(tree, part)
