"""A columnar table of things, in numpy: what expressions are evaluated over, by find and by place alike.

One row per key. Row numbers are stable while a key lives; a removed row is empty (every value absent) until it is used
again. Integers are int64 with a presence mask; texts are int32 codes of a dictionary, sets of words int32 codes of a
dictionary of sets; flags are 0 absent, 1 false, 2 true. Code 0 is absent everywhere. Columns grow by doubling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tieline.language.attributes import Attribute
from tieline.language.column import Column, FlagColumn, IntegerColumn, MappingColumn, TextColumn, WordsColumn
from tieline.language.types import Type

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
MAPPINGS = ("label", "evidence")  # functions whose values are a mapping of words that each row holds
MAX_METRICS = 32  # metric names that have a column; the values of further names are unknown


class Table:
    """Rows by key; see the module. Attributes that are readings have no column."""

    def __init__(self, attributes: Sequence[Attribute], capacity: int = 64) -> None:
        self.attributes = {row.name: row for row in attributes}
        self.capacity = max(8, capacity)
        self.high = 0  # rows below this number have been used
        self.live: Flags = np.zeros(self.capacity, np.bool_)
        self.version = 0  # grows with every change
        self._rows: dict[str, int] = {}
        self._keys: list[str] = []
        self._free: list[int] = []
        self.columns: dict[str, Column] = {}
        for row in attributes:
            if not row.argument:
                self.columns[row.name] = _column(row.type, self.capacity)
            elif row.name in MAPPINGS:
                self.columns[row.name] = MappingColumn(self.capacity)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def row(self, key: str) -> int | None:
        """The row of ``key``."""
        return self._rows.get(key)

    def key(self, row: int) -> str:
        """The key of ``row``, empty for a removed one."""
        return self._keys[row]

    def keys_of(self, rows: Integers) -> list[str]:
        """The keys of some rows."""
        keys = self._keys
        return [keys[row] for row in rows.tolist()]

    def rows(self) -> Integers:
        """Every live row, ascending."""
        return np.flatnonzero(self.live[: self.high]).astype(np.int64, copy=False)

    def rows_of(self, keys: Iterable[str]) -> Integers:
        """The rows of those keys that are here, in their order."""
        found = [self._rows[key] for key in keys if key in self._rows]
        return np.array(found, np.int64)

    def put(self, key: str, values: Mapping[str, Any]) -> int:
        """Add or replace a row: attribute name -> value in base units; what is missing or None is absent.

        Raises KeyError for an attribute that the table has not, OverflowError for an integer over 63 bits.
        """
        row = self._rows.get(key)
        if row is None:  # nothing is in it: rows are empty from the start, and emptied when their key goes
            row = self._new(key)
            values = {name: value for name, value in values.items() if value is not None}
        else:
            for name, column in self.columns.items():
                if name not in values:
                    column.clear(row)
        for name, value in values.items():
            self._set(name, row, value)
        self.version += 1
        return row

    def update(self, key: str, values: Mapping[str, Any]) -> bool:
        """Change some values of a row; False when the key is not here."""
        row = self._rows.get(key)
        if row is None:
            return False
        for name, value in values.items():
            self._set(name, row, value)
        self.version += 1
        return True

    def set_integers(self, name: str, rows: Integers, values: Integers, known: Flags | None = None) -> None:
        """Set one integer attribute of many rows at once."""
        column = self.columns[name]
        assert isinstance(column, IntegerColumn), name
        column.set_many(rows, values, known)
        self.version += 1

    def remove(self, key: str) -> int | None:
        """Remove a row; its number, or None when the key is not here."""
        row = self._rows.pop(key, None)
        if row is None:
            return None
        for column in self.columns.values():
            column.clear(row)
        self._keys[row] = ""
        self.live[row] = False
        self._free.append(row)
        self.version += 1
        return row

    def extend(self, keys: Sequence[str], columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> range:
        """Add many new rows at once from whole columns, where every value is present (None in a list: absent).

        Raises ValueError when a key is here already or twice, or when a column has another length.
        """
        count = len(keys)
        if len(set(keys)) != count or any(key in self._rows for key in keys):
            raise ValueError("a key is given twice")
        if any(len(values) != count for values in columns.values()):
            raise ValueError("columns differ in length")
        start = self.high
        self._reserve(start + count)
        self.high += count
        self._keys.extend(keys)
        self._rows.update(zip(keys, range(start, self.high), strict=True))
        self.live[start : self.high] = True
        for name, values in columns.items():
            self.columns[name].set_slice(start, values)
        self.version += 1
        return range(start, self.high)

    def value(self, name: str, row: int, argument: str = "") -> Any:
        """The value of one attribute in base units, or None where it is absent."""
        if argument and name == "metric":
            name = f"metric({argument})"
        column = self.columns.get(name)
        if column is None:
            return None
        if isinstance(column, MappingColumn):
            return column.entry(row, argument)
        return column.get(row)

    def values(self, row: int) -> dict[str, Any]:
        """Every present value of a row by attribute name: what `Expression.decide` reads."""
        found = {name: column.get(row) for name, column in self.columns.items()}
        return {name: value for name, value in found.items() if value is not None}

    def integers(self, name: str) -> IntegerColumn | None:
        """The column of an integer attribute; None for a metric that no row has."""
        column = self.columns.get(name)
        assert column is None or isinstance(column, IntegerColumn), name
        return column

    def texts(self, name: str) -> TextColumn:
        """The column of a text attribute."""
        column = self.columns[name]
        assert isinstance(column, TextColumn), name
        return column

    def words(self, name: str) -> WordsColumn:
        """The column of an attribute that is a set of words."""
        column = self.columns[name]
        assert isinstance(column, WordsColumn), name
        return column

    def _set(self, name: str, row: int, value: Any) -> None:
        if name == "metric":
            self._set_metrics(row, value or {})
        elif value is None:
            self.columns[name].clear(row)
        else:
            self.columns[name].set(row, value)

    def _set_metrics(self, row: int, metrics: Mapping[str, int]) -> None:
        for name, value in metrics.items():
            key = f"metric({name})"
            if key not in self.columns:
                if sum(1 for column in self.columns if column.startswith("metric(")) >= MAX_METRICS:
                    continue
                self.columns[key] = IntegerColumn(self.capacity)
            self.columns[key].set(row, value)

    def _new(self, key: str) -> int:
        if self._free:
            row = self._free.pop()
            self._keys[row] = key
        else:
            row = self.high
            self._reserve(row + 1)
            self.high += 1
            self._keys.append(key)
        self._rows[key] = row
        self.live[row] = True
        return row

    def _reserve(self, count: int) -> None:
        if count <= self.capacity:
            return
        self.capacity = max(count, self.capacity * 2)
        self.live = np.concatenate([self.live, np.zeros(self.capacity - len(self.live), np.bool_)])
        for column in self.columns.values():
            column.grow(self.capacity)


def _column(kind: Type, capacity: int) -> Column:
    if kind is Type.TEXT:
        return TextColumn(capacity)
    if kind is Type.WORDS:
        return WordsColumn(capacity)
    if kind is Type.FLAG:
        return FlagColumn(capacity)
    return IntegerColumn(capacity)
