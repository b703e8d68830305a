"""Fields: one row per key of a dialect. The rows drive reading, did-you-mean, the JSON Schema and the reference tables.

A row's path says where the key stands: `resources.cpus`; `files[].path` inside the items of a list; `volumes.*.size`
inside the values of a mapping whose keys the author chooses. A row at the path of a section (`retry` beside
`retry.duration`) says what may stand there instead of the mapping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tieline.model.taskfile.nodes import Mapping, Node, Scalar, is_null
from tieline.model.taskfile.problem import SHOWN, shown
from tieline.model.taskfile.shapes import (
    Absent,
    Convert,
    Either,
    Free,
    Listing,
    Pairs,
    Reading,
    Schema,
    Shape,
    Value,
    nullable,
)

Section = dict[str, Value]
Foreign = Callable[[str, float], str]  # a key's path, how alike its spelling must be -> its word in this dialect


class Field(NamedTuple):
    """One row: it ``becomes`` something or is ``absent`` here for a reason; ``silent`` values ask for nothing."""

    path: str
    shape: Shape | None  # None: a mapping only
    becomes: str = ""
    absent: str = ""
    silent: tuple[Any, ...] = ()
    types: tuple[str, ...] = ()  # dstack's `type` that knows the key; empty: every type
    key: Convert | None = None  # of `path.*`
    most: int = 256  # items or entries of `path[]` and `path.*`
    is_lone: bool = False  # of `path[]`: one item may stand without its list
    is_null_kept: bool = False  # of `path.*`
    example: str = ""


class Table:
    """A mapping with known keys. Unknown ones are all noted, each with what was probably meant."""

    def __init__(self, path: str, entries: dict[str, tuple[Field | None, Shape]], foreign: Foreign) -> None:
        self.path, self.entries, self.foreign = path, entries, foreign
        self.words = "a mapping"

    def read(self, node: Node, path: str, reading: Reading) -> Value | None:
        """Every known key as a dict of key to `Value`; what says nothing is left out."""
        if not isinstance(node, Mapping):
            reading.wrong(node.at, path or "the document", "a mapping of `key: value` is expected")
            return None
        section: Section = {}
        for key, held in node.pairs:
            inner = f"{path}.{key.text}" if path else key.text
            if key.text not in self.entries:
                self._unknown(key, path, reading)
                continue
            _, shape = self.entries[key.text]
            if is_null(held):
                continue
            value = shape.read(held, inner, reading)
            if value is None:
                continue
            section[key.text] = Value(value.value, key.at, inner)
        return Value(section, node.at, path)

    def _unknown(self, key: Scalar, path: str, reading: Reading) -> None:
        """Note an unknown key, with the equivalent of another dialect or the nearest known one."""
        values = {"key": shown(f"{path}.{key.text}" if path else key.text)}
        if reading.problems.count >= SHOWN:
            reading.problems.add("task_unknown", key.at, **values)
            return
        from difflib import get_close_matches  # here: only a mistake pays for it

        full = f"{self.path}.{key.text}" if self.path else key.text
        if elsewhere := self.foreign(full, 1.0):
            reading.problems.add("task_unknown_foreign", key.at, near=elsewhere, **values)
        elif near := get_close_matches(key.text[:64], self.entries, n=1, cutoff=0.6):
            reading.problems.add("task_unknown_near", key.at, near=near[0], **values)
        elif elsewhere := self.foreign(full, 0.8):
            reading.problems.add("task_unknown_foreign", key.at, near=elsewhere, **values)
        else:
            reading.problems.add("task_unknown", key.at, **values)

    def schema(self) -> Schema:
        """An object that knows its keys."""
        properties: Schema = {}
        for name, (field, shape) in self.entries.items():
            stated = nullable(shape.schema())
            if field is not None and (field.absent or field.becomes):
                stated = {**stated, "description": field.becomes or f"not applied: {field.absent}"}
            properties[name] = stated
        return {"type": "object", "properties": properties, "additionalProperties": False}


def no_foreign(_path: str, _cutoff: float) -> str:
    """For tables without relatives."""
    return ""


def table(rows: Iterable[Field], foreign: Foreign = no_foreign) -> Table:
    """The table that ``rows`` describe."""
    return _table("", list(rows), foreign)


def _table(prefix: str, rows: list[Field], foreign: Foreign) -> Table:
    """The keys directly under ``prefix``, each with the shape that its own row and the rows below it make."""
    names: dict[str, None] = {}
    for row in rows:
        if row.path.startswith(prefix):
            names.setdefault(_head(row.path[len(prefix) :]))
    entries = {name: _entry(prefix + name, rows, foreign) for name in names if name}
    return Table(prefix.removesuffix("."), entries, foreign)


def _entry(path: str, rows: list[Field], foreign: Foreign) -> tuple[Field | None, Shape]:
    """What may stand at ``path``: by the kind of node, what its own row, its items, its entries or its section say."""
    own = next((row for row in rows if row.path == path), None)
    items = _collection(f"{path}[]", rows, foreign)
    entries = _collection(f"{path}.*", rows, foreign)
    kinds: dict[str, Shape] = {}
    if items is not None:
        row, item = items
        kinds["sequence"] = _absent(Listing(item, row.most, is_lone_allowed=row.is_lone), row)
        if row.is_lone:
            kinds |= {"scalar": kinds["sequence"], "mapping": kinds["sequence"]}
    if entries is not None:
        row, value = entries
        assert row.key is not None, path
        kinds["mapping"] = _absent(Pairs(row.key, value, row.most, is_null_kept=row.is_null_kept), row)
    if own is not None and own.shape is not None:
        kinds |= {kind: _absent(shape, own) for kind, shape in _by_kind(own.shape).items()}
    if any(_is_below(row.path, path) for row in rows):
        kinds["mapping"] = _table(f"{path}.", rows, foreign)
    assert kinds, path
    return own or (items or entries or (None,))[0], _joined(kinds)


def _collection(path: str, rows: list[Field], foreign: Foreign) -> tuple[Field, Shape] | None:
    """The row at ``path`` (`x[]` or `x.*`) with the shape of one item; rows below it make the item's mapping."""
    own = next((row for row in rows if row.path == path), None)
    if own is None:
        return None
    kinds = _by_kind(own.shape) if own.shape is not None else {}
    if any(row.path.startswith(f"{path}.") for row in rows):
        kinds["mapping"] = _table(f"{path}.", rows, foreign)
    return own, _joined(kinds)


def _by_kind(shape: Shape) -> dict[str, Shape]:
    """``shape`` under the kind of node that it reads; what reads anything stands under all of them."""
    if isinstance(shape, Either):
        parts = {"scalar": shape.scalar, "sequence": shape.sequence, "mapping": shape.mapping}
        return {kind: part for kind, part in parts.items() if part is not None}
    return dict.fromkeys(("scalar", "sequence", "mapping"), shape) if isinstance(shape, Free) else {"scalar": shape}


def _joined(kinds: dict[str, Shape]) -> Shape:
    """One shape for all kinds of node."""
    shapes = list(dict.fromkeys(kinds.values()))
    return shapes[0] if len(shapes) == 1 else Either(**kinds)


def _absent(shape: Shape, field: Field) -> Shape:
    return Absent(shape, field.absent, field.silent) if field.absent else shape


def _head(rest: str) -> str:
    """The first key of a path: `a` of `a.b`, `a[]` and `a.*`."""
    return rest.split(".", 1)[0].removesuffix("[]").replace("*", "")


def _is_below(path: str, section: str) -> bool:
    return path.startswith(f"{section}.") and not path.startswith(f"{section}.*")


def at(section: Section, name: str, default: Any = None) -> Any:
    """The plain value of ``name`` in ``section``."""
    return section[name].value if name in section else default
