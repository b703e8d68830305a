"""The nearest change that would help a query which nothing matches: one term, moved to a value that is really there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tieline.find.frame import Picked
from tieline.find.nearest import MOST_WORDS
from tieline.language.context import Context
from tieline.language.expression import Term
from tieline.language.table import Table
from tieline.language.tree import Among, Compare
from tieline.language.types import NUMERIC, Type, show
from tieline.language.vector import Frame, bind, integers_of
from tieline.model.reason import Relaxation

Integers = NDArray[np.int64]
_INCLUSIVE = {"<": "<=", ">": ">="}
REPLACED, DROPPED, VOIDED = 1.0, 2.0, 3.0  # how great a change another word is, no term, a bound that says nothing


def relax(
    parts: Iterable[tuple[Frame, Integers]], terms: tuple[Term, ...], table: Table, context: Context
) -> Relaxation | None:
    """The smallest change of one term that admits something, or None where one is not enough.

    Only rows that fail exactly one term can be won by changing one. A bound moves to the nearest value among them, and
    the change is measured against the value that was asked; an equality becomes the word that most of them have; every
    other term can only be left out. The smallest change wins, then the greatest number admitted, then the first term.
    """
    alone: list[list[NDArray[np.int64]]] = [[] for _ in terms]
    bounds = [bind(term.node, table, context) for term in terms]
    for frame, _ in parts:
        misses = np.zeros(frame.length, np.int16)
        missed = np.full(frame.length, -1, np.int16)
        for at, bound in enumerate(bounds):
            fails = ~bound(frame)[0]
            misses += fails
            missed[fails] = at
        single = np.flatnonzero(misses == 1)
        for at in np.unique(missed[single]).tolist():
            positions = single[missed[single] == at]
            alone[at].append(_values(terms[at], Picked(frame, positions), table, context))
    best: tuple[float, int, int, Relaxation] | None = None
    for at, term in enumerate(terms):
        if alone[at]:
            change, found = _change(term, np.concatenate(alone[at]), table)
            rank = (change, -found.admits, at, found)
            if best is None or rank[:3] < best[:3]:
                best = rank
    return best[3] if best else None


UNKNOWN = np.iinfo(np.int64).min


def _values(term: Term, frame: Frame, table: Table, context: Context) -> Integers:
    """What the rows have of the term's attribute: numbers, or codes of texts; `UNKNOWN` where it is not known."""
    node = term.node
    if isinstance(node, Compare) and node.ref.type in NUMERIC:
        values, known = integers_of(node.ref, table, context)(frame)
        return values if known is None else np.where(known, values, UNKNOWN)
    if isinstance(node, Compare | Among) and node.ref.type is Type.TEXT and not node.ref.is_function:
        return frame.codes(node.ref.name)[0].astype(np.int64)
    return np.full(frame.length, UNKNOWN, np.int64)


def _change(term: Term, values: Integers, table: Table) -> tuple[float, Relaxation]:
    node = term.node
    known = values[values != UNKNOWN]
    if isinstance(node, Compare) and node.ref.type in NUMERIC and node.op != "!=" and len(known):
        asked = int(node.value)
        if node.op in ("<", "<="):
            found = int(known.min())
        elif node.op in (">", ">="):
            found = int(known.max())
        else:
            found = int(known[np.abs(known - asked).argmin()])
        admits = int(np.count_nonzero(known == found))
        change = Relaxation(
            term=node.ref.key,
            asked=f"{node.op} {show(node.ref.type, asked)}",
            needed=f"{_INCLUSIVE.get(node.op, node.op)} {show(node.ref.type, found)}",
            admits=admits,
        )
        is_nothing = found <= 0 and node.op in (">", ">=")  # `npu >= 0` asks for no NPU at all
        return VOIDED if is_nothing else min(abs(found - asked) / max(abs(asked), 1), DROPPED), change
    if isinstance(node, Compare | Among) and node.ref.type is Type.TEXT and not node.ref.is_function:
        column = table.texts(node.ref.name)
        is_positive = isinstance(node, Among) or node.op == "=="
        if is_positive and len(column.texts) <= MOST_WORDS and (values > 0).any():
            counts = np.bincount(values[values > 0])
            code = int(counts.argmax())
            asked_words = str(node.value) if isinstance(node, Compare) else ", ".join(map(str, node.values))
            return REPLACED, Relaxation(
                term=node.ref.key, asked=asked_words, needed=column.texts[code], admits=int(counts[code])
            )
    return DROPPED, Relaxation(term=term.text, asked=term.text, needed="without it", admits=len(values))
