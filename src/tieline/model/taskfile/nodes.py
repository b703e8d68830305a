"""Nodes: a YAML document as positions and text, before anything has been read into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class Mark(NamedTuple):
    """A place in the file, both counted from 1; a column counts characters, not bytes."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line:,}, column {self.column:,}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text as it was written. ``is_plain``: without quotes, so that `null` may mean that nothing is said."""

    text: str
    is_plain: bool
    at: Mark

    @property
    def is_null(self) -> bool:
        """Whether it says nothing: empty, `~` or `null`, without quotes."""
        return self.is_plain and self.text in NULLS


@dataclass(frozen=True, slots=True)
class Sequence:
    """Nodes in order."""

    items: tuple[Node, ...]
    at: Mark


@dataclass(frozen=True, slots=True)
class Mapping:
    """Pairs in order; no key occurs twice."""

    pairs: tuple[tuple[Scalar, Node], ...]
    at: Mark


Node: TypeAlias = Scalar | Sequence | Mapping


def is_null(node: Node) -> bool:
    """Whether ``node`` says nothing, which is as good as leaving its key out."""
    return isinstance(node, Scalar) and node.is_null
