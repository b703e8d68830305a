"""Shapes: what a field's value may look like. Each reads nodes, states its JSON Schema and names itself in the docs.

::

    Text, Whole, Flag, Convert, Choice   one scalar
    Listing, Pairs, Table                collections of shapes
    Either                               by the node that is there: scalar, sequence or mapping
    Free                                 anything; it is not looked into

A shape never raises on what a file says: it notes the problem with its place and yields None, so that every mistake of
a file is found in one reading. A scalar that says nothing (`null`) is as good as an absent field, everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from tieline.model.task import NotApplied
from tieline.model.taskfile.nodes import Mapping, Mark, Node, Scalar, Sequence, is_null
from tieline.model.taskfile.problem import Problems, shown

Schema = dict[str, Any]
MAX_TEXT = 4_000


class Value(NamedTuple):
    """What was read, and where it stands."""

    value: Any
    at: Mark
    path: str


class Reading:
    """One document's reading: its problems and the fields that were understood and cannot mean anything here."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.not_applied: dict[str, NotApplied] = {}

    def wrong(self, at: Mark, path: str, what: str) -> None:
        """Note that the value at ``path`` cannot be."""
        self.problems.value(at, shown(path, 200), what)

    def skip(self, path: str, why: str) -> None:
        """Note that ``path`` is not applied, and why."""
        self.not_applied.setdefault(path, NotApplied(field=shown(path, 200), why=why))


class Shape(Protocol):
    """What every shape can do."""

    words: str

    def read(self, node: Node, path: str, reading: Reading) -> Value | None:
        """The value, or None after noting why there is none."""

    def schema(self) -> Schema:
        """The JSON Schema (draft 2020-12) of what `read` accepts, as far as a schema can say it."""


class Convert:
    """A scalar that a function reads; its ValueError says what is wrong."""

    def __init__(self, words: str, convert: Callable[[str], Any], schema: Schema) -> None:
        self.words = words
        self.convert = convert
        self.stated = schema

    def read(self, node: Node, path: str, reading: Reading) -> Value | None:
        """Convert the text."""
        if not isinstance(node, Scalar):
            reading.wrong(node.at, path, f"{_kind(node)} stands where {self.words} is expected")
            return None
        try:
            return Value(self.convert(node.text), node.at, path)
        except ValueError as error:
            said = "".join(c if c.isprintable() else " " for c in str(error))
            reading.wrong(node.at, path, said)
            return None

    def schema(self) -> Schema:
        """As stated."""
        return self.stated


class Text(Convert):
    """Text as it was written; numbers and truth values keep their spelling."""

    def __init__(self, words: str = "text", most: int = MAX_TEXT, pattern: str = "", mend: str = "") -> None:
        self.most = most
        self.pattern = re.compile(pattern) if pattern else None
        self.mend = mend
        stated: Schema = {"type": ["string", "number", "boolean"], "maxLength": most}
        if pattern:
            stated["pattern"] = f"^(?:{pattern})$"
        super().__init__(words, self._check, stated)

    def _check(self, text: str) -> str:
        if len(text) > self.most:
            raise ValueError(f"{len(text):,} characters; at most {self.most:,}")
        if self.pattern is not None and not self.pattern.fullmatch(text):
            raise ValueError(f"`{shown(text)}` is not {self.words}{': ' + self.mend if self.mend else ''}")
        return text


class Whole(Convert):
    """A whole number in decimal digits."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        stated: Schema = {
            "type": ["integer", "string"],
            "minimum": least,
            "maximum": most,
            "pattern": "^-?(?:0|[1-9][0-9]*)$",
        }
        super().__init__(f"a whole number from {least:,} to {most:,}", self._check, stated)

    def _check(self, text: str) -> int:
        if not re.fullmatch(r"-?(?:0|[1-9][0-9]{0,17})", text):
            raise ValueError(f"`{shown(text)}` is not a whole number from {self.least:,} to {self.most:,}")
        number = int(text)
        if not self.least <= number <= self.most:
            raise ValueError(f"{number:,} is not between {self.least:,} and {self.most:,}")
        return number


TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}  # YAML 1.1's words


class Flag(Convert):
    """True or false, in any of YAML 1.1's spellings."""

    def __init__(self) -> None:
        enum = [True, False, *(spelling(word) for word in TRUTHS for spelling in (str, str.capitalize, str.upper))]
        super().__init__("true or false", self._check, {"enum": enum})

    @staticmethod
    def _check(text: str) -> bool:
        truth = TRUTHS.get(text.lower())
        if truth is None:
            raise ValueError(f"`{shown(text)}` is neither true nor false")
        return truth


class Choice(Convert):
    """One of a few words."""

    def __init__(self, *options: str, is_folded: bool = False) -> None:
        self.options = options
        self.is_folded = is_folded
        shown_options = ", ".join(f"`{option}`" for option in options)
        letters = "|".join(options)  # words of letters, digits, `-` and `_`: nothing to escape
        stated: Schema = {"type": "string", "pattern": _folded(letters)} if is_folded else {"enum": list(options)}
        super().__init__(f"one of {shown_options}", self._check, stated)

    def _check(self, text: str) -> str:
        word = text.lower() if self.is_folded else text
        for option in self.options:
            if word == (option.lower() if self.is_folded else option):
                return option
        from difflib import get_close_matches  # here: only a mistake pays for it

        near = get_close_matches(text[:64], self.options, n=1)
        raise ValueError(f"`{shown(text)}` is not {self.words}{f', did you mean `{near[0]}`' if near else ''}")


class Listing:
    """Items of one shape. ``is_lone_allowed``: one item without its list is as good as a list of it."""

    def __init__(self, item: Shape, most: int, *, least: int = 0, is_lone_allowed: bool = False) -> None:
        self.item, self.least, self.most, self.is_lone_allowed = item, least, most, is_lone_allowed
        self.words = f"a list of: {item.words}" if not is_lone_allowed else f"{item.words}, or a list of them"

    def read(self, node: Node, path: str, reading: Reading) -> Value | None:
        """Every item that can be read."""
        if not isinstance(node, Sequence):
            if not self.is_lone_allowed:
                reading.wrong(node.at, path, f"{_kind(node)} stands where a list is expected")
                return None
            lone = self.item.read(node, path, reading)
            return Value((lone,), node.at, path) if lone is not None else None
        if not self.least <= len(node.items) <= self.most:
            reading.wrong(node.at, path, f"{len(node.items):,} items; {self.least} to {self.most:,} are possible")
            return None
        read: list[Value] = []
        for index, item in enumerate(node.items):
            inner = f"{path}[{index}]"
            if is_null(item):
                reading.wrong(item.at, inner, "says nothing; leave it out, or put it in quotes")
            elif (value := self.item.read(item, inner, reading)) is not None:
                read.append(value)
        return Value(tuple(read), node.at, path)

    def schema(self) -> Schema:
        """An array, or the lone item."""
        array: Schema = {"type": "array", "items": self.item.schema(), "maxItems": self.most}
        if self.least:
            array["minItems"] = self.least
        return {"anyOf": [self.item.schema(), array]} if self.is_lone_allowed else array


class Pairs:
    """Keys of the author's choice, each with a value of one shape. ``is_null_kept``: a null value is kept as None."""

    def __init__(self, key: Convert, value: Shape, most: int, *, is_null_kept: bool = False) -> None:
        self.key, self.value, self.most, self.is_null_kept = key, value, most, is_null_kept
        self.words = f"a mapping of {key.words} to {value.words}"

    def read(self, node: Node, path: str, reading: Reading) -> Value | None:
        """Every pair that can be read, as a dict of key to `Value`."""
        if not isinstance(node, Mapping):
            reading.wrong(node.at, path, f"{_kind(node)} stands where a mapping is expected")
            return None
        if len(node.pairs) > self.most:
            reading.wrong(node.at, path, f"{len(node.pairs):,} entries; at most {self.most:,}")
            return None
        pairs: dict[Any, Value] = {}
        for key, held in node.pairs:
            name = self.key.read(key, path, reading)
            if name is None:
                continue
            inner = f"{path}.{key.text}"
            if name.value in pairs:
                reading.wrong(key.at, inner, "says the same as a key before it")
            if is_null(held) and self.is_null_kept:
                pairs[name.value] = Value(None, key.at, inner)
            elif not is_null(held) and (value := self.value.read(held, inner, reading)) is not None:
                pairs[name.value] = Value(value.value, key.at, inner)
        return Value(pairs, node.at, path)

    def schema(self) -> Schema:
        """An object with patterned keys."""
        stated: Schema = {
            "type": "object",
            "maxProperties": self.most,
            "additionalProperties": nullable(self.value.schema()),
        }
        if pattern := self.key.stated.get("pattern"):
            stated["propertyNames"] = {"pattern": pattern}
        return stated


class Free:
    """Anything at all, taken as said and not looked into."""

    words = "anything"

    def read(self, node: Node, path: str, reading: Reading) -> Value | None:  # noqa: ARG002 - of the protocol
        """The node itself."""
        return Value(node, node.at, path)

    def schema(self) -> Schema:
        """Everything."""
        return {}


class Absent:
    """A shape that is understood and means nothing here, unless it says one of the ``silent`` values."""

    def __init__(self, shape: Shape, why: str, silent: tuple[Any, ...]) -> None:
        self.shape, self.why, self.silent, self.words = shape, why, silent, shape.words

    def read(self, node: Node, path: str, reading: Reading) -> Value | None:
        """What the shape reads; the reader is told that it is not applied."""
        value = self.shape.read(node, path, reading)
        if value is not None and value.value not in self.silent:
            reading.skip(path, self.why)
        return value

    def schema(self) -> Schema:
        """The shape's."""
        return self.shape.schema()


class Either:
    """One shape per kind of node; what has none is refused."""

    def __init__(
        self, scalar: Shape | None = None, sequence: Shape | None = None, mapping: Shape | None = None
    ) -> None:
        self.scalar, self.sequence, self.mapping = scalar, sequence, mapping
        self.shapes = tuple(dict.fromkeys(shape for shape in (scalar, sequence, mapping) if shape is not None))
        self.words = ", or ".join(shape.words for shape in self.shapes)

    def read(self, node: Node, path: str, reading: Reading) -> Value | None:
        """By the shape of the node's kind."""
        kinds = {Scalar: self.scalar, Sequence: self.sequence, Mapping: self.mapping}
        shape = kinds[type(node)]
        if shape is None:
            reading.wrong(node.at, path, f"{_kind(node)} stands where {self.words} is expected")
            return None
        return shape.read(node, path, reading)

    def schema(self) -> Schema:
        """Any of them."""
        return {"anyOf": [shape.schema() for shape in self.shapes]}


def nullable(schema: Schema) -> Schema:
    """``schema``, or null: a field that says nothing is as good as an absent one."""
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    if isinstance(schema.get("type"), list):
        return {**schema, "type": [*schema["type"], "null"]}
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return schema


def _kind(node: Node) -> str:
    return {Scalar: "a single value", Sequence: "a list", Mapping: "a mapping"}[type(node)]


def _folded(letters: str) -> str:
    """A pattern that ignores case without a flag, which JSON Schema has not."""
    return "^(?:" + "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in letters) + ")$"
