"""A prepared query: the cheapest offers that match, without reasons, for callers that ask the same again and again.

Postings are in order of price, so it reads them from the cheap end in growing spans until it has enough. Terms are
tested from the most selective on, over projections; a bound on the price cuts the postings instead of being tested.

What is free changes with every heartbeat, everything else with records only. So once a posting has been asked a few
times without a slow change, the positions that pass the slow terms are kept, and only the fast terms are tested there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tieline.find.frame import CHUNK, Picked, Span
from tieline.find.narrow import Narrowed, check_kind, check_sets, narrow
from tieline.find.order import MOST
from tieline.find.posting import TIE_BITS, UNPRICED, Posting
from tieline.find.shown import FREE
from tieline.language.column import TextColumn, WordsColumn
from tieline.language.context import NOWHERE, Context
from tieline.language.expression import Expression, Term, compile_query
from tieline.language.tree import refs
from tieline.language.vector import Bound, Rows, bind

if TYPE_CHECKING:
    from tieline.find.index import Index

Integers = NDArray[np.int64]
SAMPLE = 2_048
KEPT_AFTER = 8  # questions without a slow change between them, after which positions are kept
LEAST_SPAN = 512
NONE: Integers = np.zeros(0, np.int64)


class Kept(NamedTuple):
    """Positions of one posting, at one version of it, that pass the slow terms; None: too many to be worth it."""

    posting: Posting
    version: int
    asked: int  # how often since the version is this one
    positions: Integers | None


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
        self._version = self._shape = -1
        self._stamp: tuple[tuple[int, int], ...] = ()
        self._postings: list[Posting] = []
        self._bound: list[Bound] = []
        self._slow: list[Bound] = []
        self._fast: list[Bound] = []
        self._all: list[Bound] = []
        self._kept: dict[tuple[str, str], Kept] = {}
        self._rates: dict[bool, float] = {True: 1.0, False: 1.0}  # of the positions passed over, how many matched
        self._follow()
        self._order()

    def top(self, count: int) -> Integers:
        """Rows of the ``count`` cheapest matches in order (`Index.table.key` names them)."""
        if self._version != self.index.table.version:
            self._follow()
        wanted = max(1, count)
        if len(self._postings) == 1:
            return self._of_posting(self._postings[0], wanted, self._window[1])[0]
        limit, best = self._window[1], []
        for posting in self._postings:
            rows, keys = self._of_posting(posting, wanted, limit)
            best.append((rows, keys))
            if len(keys) == wanted:
                limit = min(limit, int(keys[-1]) + 1)
        if not best:
            return NONE
        rows, keys = np.concatenate([rows for rows, _ in best]), np.concatenate([keys for _, keys in best])
        return rows[np.argsort(keys, kind="stable")[:wanted]]

    def ids(self, count: int) -> list[str]:
        """The identifiers of `top`."""
        return self.index.table.keys_of(self.top(count))

    def _of_posting(self, posting: Posting, count: int, limit: int) -> tuple[Integers, Integers]:
        """(rows, keys) of the first ``count`` matches of one posting, below the key ``limit``."""
        start, stop = 0, len(posting.keys)
        if self._window[0] > 0:
            start = int(np.searchsorted(posting.keys, self._window[0]))
        if limit < MOST:
            stop = int(np.searchsorted(posting.keys, limit))
        kept = self._keep(posting) if self._slow else None
        positions = self._cheapest(posting, kept, start, stop, count)
        rows, keys = posting.rows[positions], posting.keys[positions]
        if posting.tail:
            more, more_keys = self._tail(posting)
            if len(more):
                rows, keys = np.concatenate([rows, more]), np.concatenate([keys, more_keys])
                order = np.argsort(keys, kind="stable")[:count]
                rows, keys = rows[order], keys[order]
        return rows, keys

    def _cheapest(self, posting: Posting, kept: Integers | None, start: int, stop: int, count: int) -> Integers:
        """The first ``count`` matching positions of the sorted part from ``start`` to ``stop``."""
        if kept is not None and (start > 0 or stop < len(posting.keys)):
            start, stop = np.searchsorted(kept, (start, stop)).tolist()
        elif kept is not None:
            stop = len(kept)
        is_kept = kept is not None
        found: list[Integers] = []
        missing, at = count, start
        span = int(min(CHUNK, max(LEAST_SPAN, 1.25 * count / self._rates[is_kept])))
        while at < stop and missing > 0:
            end = min(stop, at + span)
            if kept is None:
                positions = self._in_span(posting, at, end)
            else:
                positions = self._among(posting, kept[at:end], self._fast)
            if posting.gaps:
                positions = positions[~posting.gone[positions]]
            missing -= len(positions)
            found.append(positions)
            at, span = end, min(2 * span, CHUNK)
        if not found:
            return NONE
        positions = found[0] if len(found) == 1 else np.concatenate(found)
        self._rates[is_kept] = max(0.5 * self._rates[is_kept] + 0.5 * len(positions) / (at - start), 1e-4)
        return positions[:count]

    def _in_span(self, posting: Posting, start: int, stop: int) -> Integers:
        if not self._bound:
            return np.arange(start, stop)
        positions = np.flatnonzero(self._bound[0](Span(posting, start, stop))[0])
        positions += start
        return self._among(posting, positions, self._bound[1:])

    def _among(self, posting: Posting, positions: Integers, bounds: list[Bound]) -> Integers:
        for bound in bounds:
            if not len(positions):
                break
            positions = positions.compress(bound(Picked(posting, positions))[0])
        return positions

    def _tail(self, posting: Posting) -> tuple[Integers, Integers]:
        rows, keys = posting.sorted_tail()
        for bound in self._all:
            yes = bound(Rows(self.index.table, rows))[0]
            rows, keys = rows[yes], keys[yes]
        return rows, keys

    def _keep(self, posting: Posting) -> Integers | None:
        """The positions that pass the slow terms, once the posting has been asked often enough to be worth it."""
        kept = self._kept.get(posting.name)
        if kept is None or kept.posting is not posting or kept.version != posting.version:
            self._kept[posting.name] = Kept(posting, posting.version, 1, None)
            return None
        if kept.asked >= KEPT_AFTER:
            return kept.positions
        if kept.asked + 1 < KEPT_AFTER:
            self._kept[posting.name] = kept._replace(asked=kept.asked + 1)
            return None
        parts = [
            np.flatnonzero(self._slow[0](Span(posting, start, min(start + CHUNK, posting.length)))[0]) + start
            for start in range(0, posting.length, CHUNK)
        ]
        positions = self._among(posting, np.concatenate(parts) if parts else NONE, self._slow[1:])
        is_worth = 2 * len(positions) <= posting.length
        self._kept[posting.name] = kept._replace(asked=KEPT_AFTER, positions=positions if is_worth else None)
        return positions if is_worth else None

    def _follow(self) -> None:
        """Look at what changed: postings that came or went, and words whose codes are not in the lookup tables yet."""
        self._version = self.index.table.version
        if self._shape != self.index.shape:
            self._shape = self.index.shape
            self._postings = self._narrowed.chosen(self.index.postings_of(self._narrowed.kinds))
            self._kept = {
                posting.name: self._kept[posting.name] for posting in self._postings if posting.name in self._kept
            }
        stamp = tuple(_size(column) for column in self._columns)
        if stamp != self._stamp or not self._all:
            self._stamp = stamp
            self._bind()

    def _bind(self) -> None:
        table = self.index.table
        bounds = [(term, bind(term.node, table, self.context)) for term in self._terms]
        self._bound = [bound for _, bound in bounds]
        self._slow = [bound for term, bound in bounds if not _is_fast(term)]
        self._fast = [bound for term, bound in bounds if _is_fast(term)]
        self._all = self._bound + [bind(term.node, table, self.context) for term in self._prices]

    def _order(self) -> None:
        """Put the terms that drop most first, as seen on a sample of what will be read."""
        rows = np.concatenate([_sample(posting) for posting in self._postings]) if self._postings else NONE
        if len(self._terms) < 2 or not len(rows):
            return
        frame = Rows(self.index.table, rows)
        shares = [float(bound(frame)[0].mean()) for bound in self._bound]
        self._terms = [self._terms[at] for at in sorted(range(len(shares)), key=shares.__getitem__)]
        self._bind()


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


def _is_fast(term: Term) -> bool:
    return any(ref.name in FREE for ref in refs(term.node))


def _window(terms: list[Term]) -> tuple[int, int]:
    """The keys from which and below which the price bounds hold. An unknown price holds none of them."""
    low, high = 0, MOST
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
