"""A posting list: the rows of one kind and accelerator in order of price, with copies of columns in the same order.

The order is one int64 key: the price in micro-yuan above 23 bits of a hash of the identifier, so that rows of one price
stand in an order which no owner gains by its name (`tie`). Rows that came since the last merge wait in a small unsorted
tail; rows that went leave a gap. Both are merged away once they are many, which costs one copy of the list.

A *projection* is a column of the table in the order of the posting, made when a query first reads it: the rows that a
query passes over lie side by side in memory, as in a covering index.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from tieline.find.shown import FREE
from tieline.language.column import FlagColumn, IntegerColumn
from tieline.language.table import Table
from tieline.language.vector import AnyCodes

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
TIE_BITS = 23
UNPRICED = (1 << 40) - 1  # above every price (10^12 micro-yuan): rows without one come last
MAX_TAIL = 1_024
MAX_PROJECTIONS = 24


def tie(key: str) -> int:
    """The place of ``key`` among rows of one price."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()[:4], "big") >> (32 - TIE_BITS)


class Projection:
    """One column in the order of a posting, and how many of its values are absent."""

    __slots__ = ("absent", "array", "generation", "known")

    def __init__(self, array: NDArray[np.integer], known: Flags | None, absent: int, generation: int) -> None:
        self.array = array
        self.known = known
        self.absent = absent
        self.generation = generation


class Posting:
    """See the module. Positions count through the sorted part; ``places`` maps rows to positions for all postings."""

    def __init__(self, table: Table, kind: str, accelerator: str) -> None:
        self.table = table
        self.kind = kind
        self.accelerator = accelerator  # empty: it is not known, or the kind has none
        self.keys: Integers = np.zeros(0, np.int64)
        self.rows: Integers = np.zeros(0, np.int64)
        self.gone: Flags = np.zeros(0, np.bool_)
        self.gaps = 0
        self.tail: dict[int, int] = {}  # row -> key
        self._tail: tuple[Integers, Integers] | None = None
        self._projections: dict[str, Projection] = {}
        self.version = 0  # grows when a slow value of the sorted part, or its order, changes

    def __len__(self) -> int:
        return len(self.rows) - self.gaps + len(self.tail)

    @property
    def name(self) -> tuple[str, str]:
        """Kind and accelerator."""
        return self.kind, self.accelerator

    # -- change -------------------------------------------------------------------------------------------------------

    def add(self, row: int, key: int, places: Integers) -> None:
        """A row that is in no posting."""
        self.tail[row] = key
        self._tail = None
        places[row] = -1
        if len(self.tail) > MAX_TAIL:
            self.merge(places)

    def remove(self, row: int, places: Integers) -> None:
        """A row that is here."""
        if self.tail.pop(row, None) is not None:
            self._tail = None
            return
        self.gone[places[row]] = True
        self.gaps += 1
        places[row] = -1
        if self.gaps > MAX_TAIL + len(self.rows) // 16:
            self.merge(places)

    def key_of(self, row: int, places: Integers) -> int:
        """The key under which a row that is here stands."""
        at = int(places[row])
        return self.tail[row] if at < 0 else int(self.keys[at])

    def fill(self, rows: Integers, keys: Integers, places: Integers) -> None:
        """Many rows at once that are in no posting."""
        rows, keys = np.concatenate([self.rows, rows]), np.concatenate([self.keys, keys])
        order = np.argsort(keys, kind="stable")
        self._become(
            rows[order], keys[order], np.concatenate([self.gone, np.zeros(len(rows), np.bool_)])[order], places
        )

    def merge(self, places: Integers) -> None:
        """Sort the tail in and close the gaps."""
        rows, keys = self.sorted_tail()
        kept = ~self.gone
        main_keys, main_rows = self.keys[kept], self.rows[kept]
        at = np.searchsorted(main_keys, keys)
        self.tail, self._tail = {}, None
        merged = np.insert(main_rows, at, rows)
        self._become(merged, np.insert(main_keys, at, keys), np.zeros(len(merged), np.bool_), places)

    def _become(self, rows: Integers, keys: Integers, gone: Flags, places: Integers) -> None:
        self.rows, self.keys, self.gone = rows, keys, gone
        self.gaps = int(gone.sum())
        self._projections.clear()
        self.version += 1
        places[rows[~gone]] = np.flatnonzero(~gone)

    def refresh(self, row: int, name: str, places: Integers) -> None:
        """A value of a row changed in the table: change its copy."""
        at = int(places[row])
        if at < 0:
            return
        if name not in FREE:
            self.version += 1
        projection = self._projections.get(name)
        if projection is None:
            return
        column = self.table.columns[name]
        if isinstance(column, IntegerColumn):
            known = bool(column.known[row])
            if projection.known is None:
                projection.known = np.ones(len(self.rows), np.bool_)
            projection.absent += int(projection.known[at]) - int(known)
            projection.known[at] = known
            projection.array[at] = column.array[row]
            return
        code = int(column.codes[row])  # type: ignore[attr-defined]
        projection.absent += int(projection.array[at] != 0) - int(code != 0)
        projection.array[at] = code

    def refresh_row(self, row: int, places: Integers) -> None:
        """Any value of a row may have changed."""
        self.version += 1
        for name in self._projections:
            self.refresh(row, name, places)

    # -- read ---------------------------------------------------------------------------------------------------------

    def sorted_tail(self) -> tuple[Integers, Integers]:
        """(rows, keys) of the tail in order."""
        if self._tail is None:
            rows = np.fromiter(self.tail, np.int64, len(self.tail))
            keys = np.fromiter(self.tail.values(), np.int64, len(self.tail))
            order = np.argsort(keys, kind="stable")
            self._tail = rows[order], keys[order]
        return self._tail

    def live_rows(self) -> Integers:
        """Every row here: the sorted part in order, then the tail."""
        rows = self.rows[~self.gone] if self.gaps else self.rows
        return np.concatenate([rows, self.sorted_tail()[0]]) if self.tail else rows

    @property
    def length(self) -> int:
        """Positions, gaps included."""
        return len(self.rows)

    def integers(self, name: str) -> tuple[Integers, Flags | None]:
        """A projection of integers, and which are known (None: all)."""
        projection = self._projections.get(name) or self._project(name)
        return projection.array, (projection.known if projection.absent else None)  # type: ignore[return-value]

    def codes(self, name: str) -> tuple[AnyCodes, bool]:
        """A projection of codes, and whether any is absent."""
        projection = self._projections.get(name)
        column = self.table.columns[name]
        if projection is None or projection.generation != getattr(column, "generation", 0):
            projection = self._project(name)
        return projection.array, projection.absent > 0

    def _project(self, name: str) -> Projection:
        column = self.table.columns.get(name)
        if column is None:  # a metric that no row has
            return Projection(np.zeros(len(self.rows), np.int64), np.zeros(len(self.rows), np.bool_), len(self.rows), 0)
        if isinstance(column, IntegerColumn):
            known = column.known[self.rows]
            absent = len(known) - int(known.sum())
            made = Projection(column.array[self.rows], known, absent, 0)
        else:
            codes: AnyCodes = column.codes[self.rows]  # type: ignore[attr-defined]
            wide = codes if isinstance(column, FlagColumn) else codes.astype(np.int64)  # a lookup needs no conversion
            made = Projection(wide, None, len(codes) - int(np.count_nonzero(codes)), getattr(column, "generation", 0))
        while len(self._projections) >= MAX_PROJECTIONS:
            del self._projections[next(iter(self._projections))]
        self._projections[name] = made
        return made
