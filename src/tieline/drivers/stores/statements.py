"""Statements: the few texts by which the writer changes an SQLite store, made once from the tables.

Many rows travel in one statement (``INSERT ... VALUES (..), (..)``) and not by the driver's ``executemany``: SQLite's
driver gives the interpreter lock away at every step and must win it back, so that 1,000 rows beside a busy event loop
wait 1,000 times for a switch interval. Row counts are split into powers of two: few texts, few steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

from sqlalchemy import Dialect, Table

from tieline.drivers.stores.tables import FIXED

MOST_ROWS = 256  # of one statement; times at most 9 columns this is far below SQLite's 32,766 variables

MARK = "?"  # how the driver marks a parameter


class Cursor(Protocol):
    """The part of a DBAPI cursor (PEP 249) that is used here."""

    def execute(self, text: str, parameters: Sequence[Any] = ..., /) -> Any:
        """Run one statement."""

    def fetchall(self) -> Sequence[Any]:
        """The rows of the last statement."""


def chunks(count: int) -> Iterator[int]:
    """``count`` as powers of two, largest first, none above `MOST_ROWS`: 300 is 256, 32, 8, 4."""
    size = MOST_ROWS
    while count:
        while size > count:
            size //= 2
        yield size
        count -= size


def update_of(table: Table, dialect: Dialect) -> str:
    """What an upsert does with a row that exists: it replaces what is not fixed."""
    quote = dialect.identifier_preparer.quote
    keys = [column.name for column in table.primary_key]
    fixed = FIXED.get(table.name, frozenset())
    changing = [column.name for column in table.columns if column.name not in keys and column.name not in fixed]
    what = "UPDATE SET " + ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in changing)
    return f" ON CONFLICT ({', '.join(map(quote, keys))}) DO {what if changing else 'NOTHING'}"


class _Repeated:
    """A statement with a part that is repeated for each row."""

    def __init__(self, head: str, part: str, tail: str = "") -> None:
        self._head, self._part, self._tail = head, part, tail
        self._texts: dict[int, str] = {}

    def text(self, count: int) -> str:
        """The statement for ``count`` rows."""
        found = self._texts.get(count)
        if found is None:
            found = self._texts[count] = self._head + ", ".join([self._part] * count) + self._tail
        return found


class Insert(_Repeated):
    """Insert rows that must be new: a key that exists is an error of the database."""

    def __init__(self, table: Table, dialect: Dialect, tail: str = "") -> None:
        self.columns = tuple(column.name for column in table.columns)
        quote = dialect.identifier_preparer.quote
        names = ", ".join(map(quote, self.columns))
        row = "(" + ", ".join([MARK] * len(self.columns)) + ")"
        super().__init__(f"INSERT INTO {quote(table.name)} ({names}) VALUES ", row, tail)  # noqa: S608 - own names

    def run(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> None:
        """Write ``rows``; their values stand in the order of `columns`."""
        at = 0
        for size in chunks(len(rows)):
            cursor.execute(self.text(size), tuple(chain.from_iterable(rows[at : at + size])))
            at += size


class Upsert(Insert):
    """Insert rows, or replace what is not fixed of those that exist (``ON CONFLICT DO UPDATE``)."""

    def __init__(self, table: Table, dialect: Dialect) -> None:
        super().__init__(table, dialect, update_of(table, dialect))


class Delete(_Repeated):
    """Delete rows by key, that of several columns with spaces between; those that do not exist are no error."""

    def __init__(self, table: Table, dialect: Dialect) -> None:
        quote = dialect.identifier_preparer.quote
        key = " || ' ' || ".join(quote(column.name) for column in table.primary_key)
        head = f"DELETE FROM {quote(table.name)} WHERE {key} IN ("  # noqa: S608 - own names
        super().__init__(head, MARK, ")")

    def run(self, cursor: Cursor, keys: Sequence[str]) -> None:
        """Delete the rows with these keys."""
        at = 0
        for size in chunks(len(keys)):
            cursor.execute(self.text(size), tuple(keys[at : at + size]))
            at += size


class Lookup(_Repeated):
    """Select rows by keys of one column."""

    def __init__(self, table: Table, dialect: Dialect, columns: Sequence[str]) -> None:
        quote = dialect.identifier_preparer.quote
        key = next(iter(table.primary_key)).name
        names = ", ".join(map(quote, columns))
        super().__init__(
            f"SELECT {names} FROM {quote(table.name)} WHERE {quote(key)} IN (",  # noqa: S608 - own names
            MARK,
            ")",
        )

    def run(self, cursor: Cursor, keys: Sequence[str]) -> list[Any]:
        """The rows with these keys, in no stated order."""
        found: list[Any] = []
        at = 0
        for size in chunks(len(keys)):
            cursor.execute(self.text(size), tuple(keys[at : at + size]))
            found.extend(cursor.fetchall())
            at += size
        return found
