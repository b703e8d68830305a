"""The order of answers: the least key first, unknown keys last, ties by a hash of the identifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tieline.language.context import Context
from tieline.language.ranking import Ranking, compile_ranking
from tieline.language.tree import Ref
from tieline.language.vector import Frame, integers_of

if TYPE_CHECKING:
    from tieline.find.index import Index

Integers = NDArray[np.int64]
Keys = NDArray[Any]  # int64 or float64
Reader = Callable[[Frame, Integers], Keys]  # (columns, row numbers) -> keys
NAMED = {"price": "price", "newest": "-updated", "free": "-free"}
WORDS = ("name", "match")  # by name; by how well the words of the query are found
MOST = np.iinfo(np.int64).max
SLACK = 1_024  # candidates beyond the limit that are kept before the worst are dropped


class Order(NamedTuple):
    """``ranking`` None: by name, or by match."""

    text: str
    ranking: Ranking | None

    @property
    def is_scored(self) -> bool:
        """Whether the key is a sum that says something by itself."""
        return self.ranking is not None and self.text not in NAMED

    @property
    def refs(self) -> tuple[Ref, ...]:
        """What it reads."""
        return tuple(ref for _, ref in self.ranking.parts) if self.ranking else ()


def read_order(text: str) -> Order:
    """price, newest, free, name, match, or a ranking such as ``price + 0.5 * rtt(shanghai)``.

    Raises TielineError `invalid_expression` with the position.
    """
    text = text.strip() or "price"
    return Order(text, None if text in WORDS else compile_ranking(NAMED.get(text, text)))


class Best:
    """The best ``limit`` of all rows that are shown to it, in parts."""

    def __init__(self, index: Index, read: Reader, limit: int) -> None:
        self.count = 0  # rows that were shown
        self._index = index
        self._read = read
        self._limit = limit
        self._worst: int | float | None = None  # a key above it cannot be among the best
        self._keys: list[Keys] = []
        self._rows: list[Integers] = []
        self._held = 0

    def see(self, frame: Frame, rows: Integers) -> None:
        """More rows, with their columns."""
        self.count += len(rows)
        keys = self._read(frame, rows)
        if self._worst is not None:
            stay = np.flatnonzero(keys <= self._worst)
            keys, rows = keys[stay], rows[stay]
        self._keys.append(keys)
        self._rows.append(rows)
        self._held += len(rows)
        if self._held > 4 * self._limit + SLACK:
            self._drop()

    def taken(self) -> tuple[Integers, Keys]:
        """(rows, keys) of the best in order."""
        if not self._keys:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._drop()
        return self._rows[0], self._keys[0]

    def _drop(self) -> None:
        keys, rows = np.concatenate(self._keys), np.concatenate(self._rows)
        best = first(keys, self._index.ties, rows, self._limit)
        self._keys, self._rows, self._held = [keys[best]], [rows[best]], len(best)
        if len(best) == self._limit:
            self._worst = self._keys[0][-1]


def first(keys: Keys, ties: Integers, rows: Integers, count: int) -> Integers:
    """Positions of the ``count`` least keys in order; ``ties`` is by row."""
    if len(keys) <= 4 * count:
        candidates = np.arange(len(keys))
    else:
        limit = np.partition(keys, count - 1)[count - 1]
        candidates = np.flatnonzero(keys <= limit)
        if len(candidates) > 4 * count:  # many share the last key: only the first of them by tie can matter
            level = candidates[keys[candidates] == limit]
            level = level[np.argpartition(ties[rows[level]], count - 1)[:count]]
            candidates = np.concatenate([candidates[keys[candidates] < limit], level])
    order = np.lexsort((ties[rows[candidates]], keys[candidates]))
    chosen: Integers = candidates[order[:count]]
    return chosen


def reader(order: Order, index: Index, context: Context) -> Reader:
    """Reads the key of each row. One attribute is compared exactly, as an integer; unknown keys come last."""
    ranking = order.ranking
    if ranking is None:
        ranks = _ranks(index)
        return lambda frame, _rows: ranks[frame.codes("name")[0]]
    if len(ranking.parts) > 1:

        def read_sum(frame: Frame, _rows: Integers) -> Keys:
            keys, known = ranking.keys(frame, index.table, context)
            return keys if known is None else np.where(known, keys, np.inf)

        return read_sum
    weight, ref = ranking.parts[0]
    read = integers_of(ref, index.table, context)

    def read_one(frame: Frame, _rows: Integers) -> Keys:
        values, known = read(frame)
        keys = values if weight > 0 else -values
        return keys if known is None else np.where(known, keys, MOST)

    return read_one


def by_match(found: Integers, scores: NDArray[np.float64]) -> Reader:
    """Reads the key of rows that words were found in: the better the match, the less."""
    return lambda _frame, rows: -scores[np.searchsorted(found, rows)]


def _ranks(index: Index) -> Integers:
    """By code of a name: its place in alphabetical order."""
    names = index.table.texts("name").texts
    ranks = np.empty(len(names), np.int64)
    ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return ranks
