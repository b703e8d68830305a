"""Three-valued evaluation over one environment of plain values: how a site decides a policy, without numpy."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tieline.language.tree import Among, AmongSet, And, Compare, Contains, Node, Not, Or, Ref, Relate
from tieline.language.types import Type

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Sets = Mapping[str, Collection[str]]


def decide(node: Node, values: Mapping[str, Any], sets: Sets) -> bool | None:
    """True, False, or None for unknown. A missing value, a value of another type and a missing set are unknown."""
    if isinstance(node, And):
        answers = [decide(item, values, sets) for item in node.items]
        return False if False in answers else (None if None in answers else True)
    if isinstance(node, Or):
        answers = [decide(item, values, sets) for item in node.items]
        return True if True in answers else (None if None in answers else False)
    if isinstance(node, Not):
        answer = decide(node.item, values, sets)
        return None if answer is None else not answer
    if isinstance(node, Relate):
        left, right = look(node.left, values), look(node.right, values)
        return None if left is None or right is None else OPERATORS[node.op](left, right)
    value = look(node.ref, values)
    if value is None:
        return None
    if isinstance(node, Compare):
        return OPERATORS[node.op](value, node.value)
    if isinstance(node, Among):
        return value in node.values
    if isinstance(node, AmongSet):
        return None if node.name not in sets else value in sets[node.name]
    assert isinstance(node, Contains)
    return node.word in value


def look(ref: Ref, values: Mapping[str, Any]) -> Any:
    """The value of ``ref``, or None where it is missing or of another type.

    A function is looked up as ``rtt(shanghai)``, or by its argument in a mapping ``rtt``.
    """
    value = values.get(ref.key)
    if value is None and ref.is_function:
        table = values.get(ref.name)
        value = table.get(ref.argument) if isinstance(table, Mapping) else None
    if ref.type is Type.FLAG:
        return value if isinstance(value, bool) else None
    if ref.type is Type.TEXT:
        return value if isinstance(value, str) and value else None
    if ref.type is Type.WORDS:
        return value if isinstance(value, tuple | list | frozenset | set) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
