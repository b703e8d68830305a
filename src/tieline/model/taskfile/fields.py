"""Fields: one row per key of a dialect. The rows drive reading, did-you-mean, the JSON Schema and the reference tables.

A row's path says where the key stands: `resources.cpus`; `files[].path` inside the items of a list; `volumes.*.size`
inside the values of a mapping whose keys the author chooses. A row at the path of a section (`retry` beside
`retry.duration`) says what may stand there instead of the mapping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tieline.model.taskfile.nodes import Mapping, Mark, Node, Scalar, is_null
from tieline.model.taskfile.problem import SHOWN, shown
from tieline.model.taskfile.shapes import Convert, Either, Listing, Pairs, Reading, Schema, Shape, Value, nullable

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
            field, shape = self.entries[key.text]
            if is_null(held):
                continue
            value = shape.read(held, inner, reading)
            if value is None:
                continue
            section[key.text] = Value(value.value, key.at, inner)
            if field is not None and field.absent and value.value not in field.silent:
                reading.skip(inner, field.absent)
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
    own = next((row for row in rows if row.path == path), None)
    listed = _collection(f"{path}[]", rows, foreign)
    paired = _collection(f"{path}.*", rows, foreign)
    section = _table(f"{path}.", rows, foreign) if any(_is_below(row.path, path) for row in rows) else None
    shapes: list[Shape] = [own.shape] if own is not None and own.shape is not None else []
    field = own
    if listed is not None:
        field = field or listed[0]
        shapes.append(Listing(listed[1], listed[0].most, is_lone_allowed=listed[0].is_lone))
    if paired is not None:
        field = field or paired[0]
        assert paired[0].key is not None, path
        shapes.append(Pairs(paired[0].key, paired[1], paired[0].most, is_null_kept=paired[0].is_null_kept))
    if section is not None:
        shapes.append(section)
    assert shapes, path
    return field, _joined(shapes)


def _collection(path: str, rows: list[Field], foreign: Foreign) -> tuple[Field, Shape] | None:
    """The row at ``path`` (`x[]` or `x.*`) with the shape of one item; rows below it make the item's mapping."""
    own = next((row for row in rows if row.path == path), None)
    if own is None:
        return None
    shapes: list[Shape] = [own.shape] if own.shape is not None else []
    if any(row.path.startswith(f"{path}.") for row in rows):
        shapes.append(_table(f"{path}.", rows, foreign))
    return own, _joined(shapes)


def _joined(shapes: list[Shape]) -> Shape:
    """One shape for all of them: by the kind of node that each one reads."""
    if len(shapes) == 1:
        return shapes[0]
    kinds: dict[str, Shape] = {}
    for shape in shapes:
        if isinstance(shape, Either):
            parts = {"scalar": shape.scalar, "sequence": shape.sequence, "mapping": shape.mapping}
            kinds.update({kind: part for kind, part in parts.items() if part is not None})
        else:
            kinds[_node_kind(shape)] = shape
    lone = next((shape for shape in shapes if isinstance(shape, Listing) and shape.is_lone_allowed), None)
    if lone is not None:
        kinds.setdefault("scalar", lone)
    return Either(**kinds)


def _node_kind(shape: Shape) -> str:
    if isinstance(shape, Listing):
        return "sequence"
    return "mapping" if isinstance(shape, Pairs | Table) else "scalar"


def _head(rest: str) -> str:
    """The first key of a path: `a` of `a.b`, `a[]` and `a.*`."""
    return rest.split(".", 1)[0].removesuffix("[]").replace("*", "")


def _is_below(path: str, section: str) -> bool:
    return path.startswith(f"{section}.") and not path.startswith(f"{section}.*")


def at(section: Section, name: str, default: Any = None) -> Any:
    """The plain value of ``name`` in ``section``."""
    return section[name].value if name in section else default


def mark(section: Section, name: str, default: Mark) -> Mark:
    """Where ``name`` stands."""
    return section[name].at if name in section else default
