"""A prepared query: the cheapest offers that match, without reasons, for callers that ask the same again and again.

Postings are in order of price, so it reads them from the cheap end in growing spans until it has enough. Terms are
tested from the most selective on, over projections; a bound on the price cuts the postings instead of being tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tieline.find.frame import CHUNK, Picked, Span
from tieline.find.narrow import Narrowed, check_kind, check_sets, narrow
from tieline.find.posting import TIE_BITS, UNPRICED, Posting
from tieline.language.column import TextColumn, WordsColumn
from tieline.language.context import NOWHERE, Context
from tieline.language.expression import Expression, Term, compile_query
from tieline.language.vector import Bound, Rows, bind

if TYPE_CHECKING:
    from tieline.find.index import Index

Integers = NDArray[np.int64]
SAMPLE = 2_048
LEAST_SPAN = 512
NONE: Integers = np.zeros(0, np.int64)


class Prepared:
    """Bound to one index and one context; it follows the changes of the index by itself."""

    def __init__(self, index: Index, expression: Expression, kind: str, context: Context) -> None:
        self.index = index
        self.expression = expression
        self.context = context
        self._narrowed: Narrowed = narrow(expression, kind)
        self._prices = [term for term in self._narrowed.terms if _is_price(term)]
        self._terms = [term for term in self._narrowed.terms if not _is_price(term)]
        self._window = _window(self._prices)
        self._columns = [index.table.columns[name] for name in _read(expression) if name in index.table.columns]
        self._stamp: tuple[tuple[int, int], ...] = ()
        self._bound: list[Bound] = []
        self._all_bound: list[Bound] = []
        self._rate = 1.0  # of the rows that were passed over, how many matched
        self._order()

    def top(self, count: int) -> Integers:
        """Rows of the ``count`` cheapest matches in order (`Index.table.key` names them)."""
        self._bind()
        wanted = max(1, count)
        best: list[tuple[Integers, Integers]] = []
        limit = self._window[1]
        postings = self._narrowed.chosen(self.index.postings_of(self._narrowed.kinds))
        for posting in postings:
            rows, keys = self._cheapest(posting, wanted, limit)
            if posting.tail:
                more, more_keys = self._tail(posting)
                if len(more):
                    rows, keys = np.concatenate([rows, more]), np.concatenate([keys, more_keys])
                    order = np.argsort(keys, kind="stable")[:wanted]
                    rows, keys = rows[order], keys[order]
            best.append((rows, keys))
            if len(keys) == wanted:
                limit = min(limit, int(keys[-1]) + 1)
        if len(best) == 1:
            return best[0][0]
        if not best:
            return NONE
        rows, keys = np.concatenate([rows for rows, _ in best]), np.concatenate([keys for _, keys in best])
        return rows[np.argsort(keys, kind="stable")[:wanted]]

    def ids(self, count: int) -> list[str]:
        """The identifiers of `top`."""
        key = self.index.table.key
        return [key(row) for row in self.top(count).tolist()]

    def _cheapest(self, posting: Posting, count: int, limit: int) -> tuple[Integers, Integers]:
        """The first ``count`` matches of the sorted part, below the key ``limit``."""
        at, stop = np.searchsorted(posting.keys, (self._window[0], limit)).tolist()
        found: list[Integers] = []
        missing, span, seen = count, int(min(CHUNK, max(LEAST_SPAN, 1.25 * count / self._rate))), 0
        while at < stop and missing > 0:
            end = min(stop, at + span)
            positions = self._matches(posting, at, end)
            seen += end - at
            missing -= len(positions)
            found.append(positions)
            at, span = end, min(2 * span, CHUNK)
        if not found:
            return NONE, NONE
        positions = found[0] if len(found) == 1 else np.concatenate(found)
        self._rate = max(0.5 * self._rate + 0.5 * len(positions) / seen, 1e-4)
        positions = positions[:count]
        return posting.rows[positions], posting.keys[positions]

    def _matches(self, posting: Posting, start: int, stop: int) -> Integers:
        if not self._bound:
            positions = np.arange(start, stop)
        else:
            positions = np.flatnonzero(self._bound[0](Span(posting, start, stop))[0])
            positions += start
            for bound in self._bound[1:]:
                if not len(positions):
                    break
                positions = positions[bound(Picked(posting, positions))[0]]
        return positions[~posting.gone[positions]] if posting.gaps else positions

    def _tail(self, posting: Posting) -> tuple[Integers, Integers]:
        rows, keys = posting.sorted_tail()
        for bound in self._all_bound:
            yes = bound(Rows(self.index.table, rows))[0]
            rows, keys = rows[yes], keys[yes]
        return rows, keys

    def _bind(self) -> None:
        """Bind again when a column that is read has new words: their codes are not in the lookup tables yet."""
        stamp = tuple(_size(column) for column in self._columns)
        if stamp != self._stamp or not self._all_bound:
            self._stamp = stamp
            table = self.index.table
            self._bound = [bind(term.node, table, self.context) for term in self._terms]
            self._all_bound = self._bound + [bind(term.node, table, self.context) for term in self._prices]

    def _order(self) -> None:
        """Put the terms that drop most first, as seen on a sample of what will be read."""
        if len(self._terms) < 2:
            return
        postings = self._narrowed.chosen(self.index.postings_of(self._narrowed.kinds))
        rows = np.concatenate([_sample(posting) for posting in postings]) if postings else NONE
        if not len(rows):
            return
        frame = Rows(self.index.table, rows)
        kept = [float(bind(term.node, self.index.table, self.context)(frame)[0].mean()) for term in self._terms]
        self._terms = [self._terms[at] for at in sorted(range(len(kept)), key=kept.__getitem__)]


def prepare(index: Index, query: str | Expression, *, kind: str = "", context: Context = NOWHERE) -> Prepared:
    """Prepare ``query`` in price order. Raises TielineError `invalid_expression` or `invalid_request`.

    A change of readings or named sets needs a new context, and so a new preparation; changes of the index do not.
    """
    check_kind(kind)
    expression = compile_query(query) if isinstance(query, str) else query
    check_sets(expression, context.sets)
    return Prepared(index, expression, kind, context)


def _is_price(term: Term) -> bool:
    bound = term.bound
    return bound is not None and bound.ref.name == "price" and bound.op not in ("==", "!=")


def _window(terms: list[Term]) -> tuple[int, int]:
    """The keys from which and below which the price bounds hold. An unknown price holds none of them."""
    low, high = 0, np.iinfo(np.int64).max
    for term in terms:
        bound = term.bound
        assert bound is not None
        value = min(max(int(bound.value), -1), UNPRICED)
        if bound.op in ("<", "<="):
            high = min(high, (value + (bound.op == "<=")) << TIE_BITS if value >= 0 else 0)
        else:
            low = max(low, (value + (bound.op == ">")) << TIE_BITS)
    return low, min(high, UNPRICED << TIE_BITS) if terms else int(high)


def _read(expression: Expression) -> list[str]:
    """The columns that an expression reads."""
    names = ["site" if ref.name in ("rtt", "bandwidth") else ref.name for ref in expression.refs]
    return list(dict.fromkeys(names))


def _size(column: object) -> tuple[int, int]:
    words = column.texts if isinstance(column, TextColumn) else column.sets if isinstance(column, WordsColumn) else ()
    return len(words), getattr(column, "generation", 0)


def _sample(posting: Posting) -> Integers:
    rows = posting.live_rows()
    return rows[:: max(1, len(rows) // SAMPLE)][:SAMPLE]
