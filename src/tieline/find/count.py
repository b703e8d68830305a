"""One vectorised pass over everything considered: what matches, and the first term that each of the others fails.

A row is counted at its first false term, in the order of the query (the accelerator first: it chooses postings). A row
for which no term is false and some are unknown is counted at its first unknown one. So the counts and the matches add
up to what was considered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tieline.find.frame import CHUNK, Picked, Span
from tieline.find.nearest import Nearest
from tieline.find.order import Best
from tieline.find.posting import Posting
from tieline.language.context import Context
from tieline.language.expression import Term
from tieline.language.table import Table
from tieline.language.vector import Bound, Frame, Rows, bind

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Parts = Iterator[tuple[Frame, Integers]]
SMALL = 4_096  # postings below this are gathered together


@dataclass
class Count:
    """Per term: how many rows fail it first, and how many stop at it as unknown. The matches are shown to a `Best`."""

    terms: tuple[Term, ...]
    false: list[int]
    unknown: list[int]
    nearest: list[Nearest]


def chunks(table: Table, postings: Sequence[Posting]) -> Parts:
    """Every live row of some postings, in parts: columns and row numbers. Large ones are read through projections."""
    small: list[Integers] = []
    for posting in postings:
        if len(posting) < SMALL:
            small.append(posting.live_rows())
            continue
        if posting.tail:
            small.append(posting.sorted_tail()[0])
        for start in range(0, posting.length, CHUNK):
            stop = min(start + CHUNK, posting.length)
            if posting.gaps:
                positions = np.flatnonzero(~posting.gone[start:stop]) + start
                yield Picked(posting, positions), posting.rows[positions]
            else:
                yield Span(posting, start, stop), posting.rows[start:stop]
    if small:
        yield from pieces(table, np.sort(np.concatenate(small)))


def pieces(table: Table, rows: Integers) -> Parts:
    """Chosen rows in parts."""
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        yield Rows(table, part), part


def count(
    groups: Iterable[tuple[Parts, int]], terms: tuple[Term, ...], table: Table, context: Context, best: Best
) -> Count:
    """Count and match; see the module. The rows of a group are known to fulfil the terms before its number."""
    bounds = [bind(term.node, table, context) for term in terms]
    result = Count(terms, [0] * len(terms), [0] * len(terms), [Nearest(term, table, context) for term in terms])
    for parts, first in groups:
        for frame, rows in parts:
            kept = _pass(frame, bounds, result, first)
            if kept is None:
                best.see(frame, rows)
            elif len(kept):
                best.see(Picked(frame, kept), rows[kept])
    return result


def _pass(frame: Frame, bounds: list[Bound], result: Count, first: int) -> Integers | None:
    """The positions of ``frame`` that match; None: all of them."""
    current, kept = frame, None
    unknown_by: NDArray[np.int16] | None = None
    for at, bound in enumerate(bounds[first:], first):
        yes, unknown = bound(current)
        possible = yes if unknown is None else yes | unknown
        left = int(np.count_nonzero(possible))
        if unknown is not None and left and unknown.any():
            if unknown_by is None:
                unknown_by = np.full(current.length, -1, np.int16)
            unknown_by[unknown & (unknown_by < 0)] = at
        if left == current.length:
            continue
        result.false[at] += current.length - left
        if not result.nearest[at].is_settled:
            lost = np.flatnonzero(~possible)
            result.nearest[at].see(Picked(frame, lost if kept is None else kept[lost]))
        stay = np.flatnonzero(possible)
        kept = stay if kept is None else kept[stay]
        if not left:
            return kept
        unknown_by = None if unknown_by is None else unknown_by[stay]
        current = Picked(frame, kept)
    if unknown_by is None:
        return kept
    for at, number in enumerate(np.bincount(unknown_by[unknown_by >= 0], minlength=len(bounds)).tolist()):
        result.unknown[at] += number
    sure = np.flatnonzero(unknown_by < 0)
    return sure if kept is None else kept[sure]
