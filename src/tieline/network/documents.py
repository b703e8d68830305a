"""Documents: YAML and JSON that people write about networks, with units (`rate: 10Gbit/s`), read into structs.

A scalar keeps its text until a field says what it wants. Where a field is ``rate_bps``, ``rate: 10Gbit/s`` says the
same; both at once are refused. Bounded by `model.taskfile.compose` (YAML) and `import_values.MOST_BYTES` (JSON).
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from tieline.model.error import TielineError
from tieline.model.quantity import MONEY_MICRO_CNY, RATE_BPS, TIME_US, scaled
from tieline.model.taskfile.compose import compose
from tieline.model.taskfile.nodes import Mapping, Node, Scalar
from tieline.model.taskfile.problem import Problems
from tieline.network.import_values import refused, sized

T = TypeVar("T")
MOST_DEPTH: Final = 32
SAID: Final = {
    # as people write it: the field, its units, the unit of a bare number
    "rate": ("rate_bps", RATE_BPS, "bit/s"),
    "capacity": ("capacity_bps", RATE_BPS, "bit/s"),
    "capacity_back": ("capacity_back_bps", RATE_BPS, "bit/s"),
    "delay": ("delay_us", TIME_US, "us"),
    "latency": ("latency_us", TIME_US, "us"),
    "price": ("price_micro_cny", MONEY_MICRO_CNY, "CNY"),
    "price_per_km": ("price_per_km_micro_cny", MONEY_MICRO_CNY, "CNY"),
    "price_per_gb": ("price_micro_cny_per_gb", MONEY_MICRO_CNY, "CNY"),
    "budget": ("budget_micro_cny", MONEY_MICRO_CNY, "CNY"),
}
TRUE, FALSE = ("true", "yes", "on"), ("false", "no", "off")


def is_json(content: bytes) -> bool:
    """Whether a document begins as JSON does; anything else is read as YAML, which is the same where both are."""
    return content.lstrip()[:1] in (b"{", b"[")


def plain(content: bytes, source: str) -> Any:
    """The values of one document: dicts, lists, text, numbers of JSON; no type is guessed from YAML's text."""
    if is_json(content):
        try:
            return msgspec.json.decode(sized(content))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise refused(f"`{source}` is not JSON: {error}", source) from None
    problems = Problems(source)
    documents = compose(content, problems)
    problems.raise_any()
    if len(documents) != 1:
        raise refused(f"`{source}` holds {len(documents)} documents, and one is read", source)
    return _values(documents[0])


def read(content: bytes, kind: type[T], source: str) -> T:
    """One document as ``kind``. Raises TielineError that says what and where."""
    return converted(plain(content, source), kind, source)


def converted(tree: Any, kind: type[T], source: str) -> T:
    """Plain values as ``kind``, units understood."""
    try:
        return msgspec.convert(_measured(tree, source, "", 0), kind, strict=False)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        where = place.replace("`", "").replace("$.", "").replace("$", "")
        at = f" at `{where}`" if where else ""
        raise refused(f"`{source}`{at}: {message[:1].lower()}{message[1:]}", where or source) from None


def _values(node: Node) -> Any:
    if isinstance(node, Scalar):
        if node.is_null:
            return None
        if node.is_plain and node.text.lower() in (*TRUE, *FALSE):
            return node.text.lower() in TRUE
        return node.text
    if isinstance(node, Mapping):
        return {key.text: _values(value) for key, value in node.pairs}
    return [_values(value) for value in node.items]


def _measured(tree: Any, source: str, where: str, depth: int) -> Any:
    """The same values, quantities with units as the integers of their fields."""
    if depth > MOST_DEPTH:
        raise refused(f"`{source}` is nested deeper than {MOST_DEPTH} levels", where)
    if isinstance(tree, list):
        return [_measured(value, source, f"{where}[{at}]", depth + 1) for at, value in enumerate(tree)]
    if not isinstance(tree, dict):
        return tree
    made: dict[str, Any] = {}
    for key, value in tree.items():
        place = f"{where}.{key}" if where else key
        field, units, unit = SAID.get(key, ("", {}, ""))
        if not field or isinstance(value, (dict, list)):
            made[key] = _measured(value, source, place, depth + 1)
            continue
        if field in tree:
            raise refused(f"`{source}` at `{place}`: says the same as `{field}`", place)
        try:
            made[field] = scaled(str(value), units, unit)
        except ValueError as error:
            raise TielineError("invalid_request", f"`{source}` at `{place}`: {error}", where=place) from None
    return made
