"""The typed tree of an expression: what is left once names, types and units are checked.

Numbers are in base units, names are resolved, comparisons have their attribute on the left. Every node is data: it
is written as JSON by `to_json` and as text by `canonical`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from tieline.language.types import Type, write_number

Value: TypeAlias = int | str | bool


class Ref(msgspec.Struct, frozen=True):
    """An attribute, or a function of one word such as ``rtt(shanghai)``."""

    name: str
    type: Type
    argument: str = ""
    is_function: bool = False

    @property
    def key(self) -> str:
        """The name under which a scalar environment or a column holds it."""
        return f"{self.name}({self.argument})" if self.is_function else self.name


class Compare(msgspec.Struct, frozen=True, tag="compare", tag_field="node"):
    """``ref op value``; op is one of ``== != < <= > >=``, and only the first two for texts and flags."""

    ref: Ref
    op: str
    value: Value


class Relate(msgspec.Struct, frozen=True, tag="relate", tag_field="node"):
    """``left op right``: two numbers of one type."""

    left: Ref
    op: str
    right: Ref


class Among(msgspec.Struct, frozen=True, tag="among", tag_field="node"):
    """``ref in [values]``."""

    ref: Ref
    values: tuple[int | str, ...]


class AmongSet(msgspec.Struct, frozen=True, tag="among_set", tag_field="node"):
    """``ref in name``: a named set of the asker (or, in a policy, of the owner)."""

    ref: Ref
    name: str


class Contains(msgspec.Struct, frozen=True, tag="contains", tag_field="node"):
    """``word in ref`` for an attribute that is a set of words; ``has(word)`` is ``word in tags``."""

    ref: Ref
    word: str


class Not(msgspec.Struct, frozen=True, tag="not", tag_field="node"):
    """Unknown stays unknown."""

    item: Node


class And(msgspec.Struct, frozen=True, tag="and", tag_field="node"):
    """False when one item is false, else unknown when one is unknown. No items: true."""

    items: tuple[Node, ...]


class Or(msgspec.Struct, frozen=True, tag="or", tag_field="node"):
    """True when one item is true, else unknown when one is unknown."""

    items: tuple[Node, ...]


Node: TypeAlias = Compare | Relate | Among | AmongSet | Contains | Not | And | Or


def leaves(node: Node) -> Iterator[Compare | Relate | Among | AmongSet | Contains]:
    """Every test in the tree, left to right."""
    if isinstance(node, And | Or):
        for item in node.items:
            yield from leaves(item)
    elif isinstance(node, Not):
        yield from leaves(node.item)
    else:
        yield node


def refs(node: Node) -> Iterator[Ref]:
    """Every attribute that the tree reads, left to right, repeated where it is repeated."""
    for leaf in leaves(node):
        if isinstance(leaf, Relate):
            yield leaf.left
            yield leaf.right
        else:
            yield leaf.ref


def canonical(node: Node) -> str:
    """One text per meaning-preserving spelling; parsing it gives the same tree."""
    if isinstance(node, And):
        return " and ".join(_inside(item, Or) for item in node.items)
    if isinstance(node, Or):
        return " or ".join(canonical(item) for item in node.items)
    if isinstance(node, Not):
        return _negation(node.item)
    if isinstance(node, Compare):
        if node.ref.type is Type.FLAG:
            return f"{_show(node.ref)} {node.op} {'true' if node.value else 'false'}"
        return f"{_show(node.ref)} {node.op} {_literal(node.ref.type, node.value)}"
    if isinstance(node, Relate):
        return f"{_show(node.left)} {node.op} {_show(node.right)}"
    if isinstance(node, Among):
        return f"{_show(node.ref)} in [{', '.join(_literal(node.ref.type, value) for value in node.values)}]"
    if isinstance(node, AmongSet):
        return f"{_show(node.ref)} in {node.name}"
    return f"{_quote(node.word)} in {_show(node.ref)}"


def _negation(item: Node) -> str:
    if isinstance(item, Among | AmongSet | Contains):
        left, _, right = canonical(item).partition(" in ")
        if " in " not in right:  # a quoted word may hold the text ` in `
            return f"{left} not in {right}"
    return f"not {_inside(item, And | Or)}"


def _inside(item: Node, wrapped: object) -> str:
    text = canonical(item)
    return f"({text})" if isinstance(item, wrapped) else text  # type: ignore[arg-type]


def _show(ref: Ref) -> str:
    return f"{ref.name}({_quote(ref.argument)})" if ref.is_function else ref.name


def _literal(kind: Type, value: Value) -> str:
    return _quote(value) if isinstance(value, str) else write_number(kind, value)


def _quote(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
