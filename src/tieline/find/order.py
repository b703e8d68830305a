"""The order of answers: the least key first, unknown keys last, ties by a hash of the identifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tieline.language.context import Context
from tieline.language.ranking import Ranking, compile_ranking
from tieline.language.vector import Flags, Rows, integers_of

if TYPE_CHECKING:
    from tieline.find.index import Index

Integers = NDArray[np.int64]
Keys = NDArray[np.int64] | NDArray[np.float64]
NAMED = {"price": "price", "newest": "-updated", "free": "-free"}
WORDS = ("name", "match")  # by name; by how well the words of the query are found
MOST = np.iinfo(np.int64).max


class Order(NamedTuple):
    """``ranking`` None: by name, or by match."""

    text: str
    ranking: Ranking | None

    @property
    def scored(self) -> bool:
        """Whether the key is a sum that says something by itself."""
        return self.ranking is not None and self.text not in NAMED


def read_order(text: str) -> Order:
    """price, newest, free, name, match, or a ranking such as ``price + 0.5 * rtt(shanghai)``.

    Raises TielineError `invalid_expression` with the position.
    """
    text = text.strip() or "price"
    return Order(text, None if text in WORDS else compile_ranking(NAMED.get(text, text)))


def keys_of(order: Order, index: Index, rows: Integers, context: Context) -> tuple[Keys, Flags | None]:
    """The key of each row, and which are known. One attribute is compared exactly, as an integer."""
    if order.ranking is None:
        return _by_name(index, rows), None
    frame = Rows(index.table, rows)
    if len(order.ranking.parts) == 1:
        weight, ref = order.ranking.parts[0]
        values, known = integers_of(ref, index.table, context)(frame)
        return (values if weight > 0 else -values), known
    return order.ranking.keys(frame, index.table, context)


def first(keys: Keys, known: Flags | None, ties: Integers, count: int) -> Integers:
    """Positions of the ``count`` least keys in order."""
    if known is not None and not known.all():
        keys = np.where(known, keys, MOST if keys.dtype.kind == "i" else np.inf)
    if len(keys) > 4 * count:
        limit = np.partition(keys, count - 1)[count - 1]
        candidates = np.flatnonzero(keys <= limit)
        if len(candidates) > 4 * count:  # many share the last key: only the first of them by tie can matter
            below = candidates[keys[candidates] < limit]
            level = candidates[keys[candidates] == limit]
            level = level[np.argpartition(ties[level], min(count, len(level)) - 1)[:count]]
            candidates = np.concatenate([below, level])
    else:
        candidates = np.arange(len(keys))
    order = np.lexsort((ties[candidates], keys[candidates]))
    chosen: Integers = candidates[order[:count]]
    return chosen


def _by_name(index: Index, rows: Integers) -> Integers:
    column = index.table.texts("name")
    codes, inverse = np.unique(column.codes[rows], return_inverse=True)
    names = [column.texts[code] for code in codes.tolist()]
    ranks = np.empty(len(names), np.int64)
    ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return ranks[inverse]
