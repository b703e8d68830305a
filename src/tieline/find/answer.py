"""`find`: which offers fit, in order, and counted reasons for everything else that was considered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tieline.find.count import Count, chunks, count, pieces
from tieline.find.index import Index
from tieline.find.narrow import Narrowed, check_kind, check_sets, mixed, narrow, postings_of
from tieline.find.nearest import Nearest
from tieline.find.order import Integers, Keys, Order, first, keys_of, read_order
from tieline.find.posting import Posting
from tieline.find.relax import relax
from tieline.find.shown import offer, readings_of
from tieline.language.context import NOWHERE, Context
from tieline.language.expression import Expression, compile_query
from tieline.model.error import TielineError
from tieline.model.plan import Answer, Offer
from tieline.model.reason import Reason, Relaxation

MAX_LIMIT = 1_000
Scores = tuple[Integers, NDArray[np.float64]]


def find(
    index: Index,
    query: str | Expression = "",
    *,
    words: str = "",
    kind: str = "",
    order: str = "",
    limit: int = 20,
    context: Context = NOWHERE,
    as_of_ms: int = 0,
) -> Answer:
    """Offers that match ``query`` and hold some of ``words``, the best ``limit`` of them in ``order``.

    ``order`` is price, newest, free, name, match, or a ranking such as ``price + 0.5 * rtt(shanghai)``; empty: match
    where words are given, else price. Considered are the offers of ``kind`` (empty: of every kind that has all the
    attributes of the query). The reasons and the matches add up to them. ``nearest`` is stated where nothing matches.

    Raises TielineError `invalid_expression` (position in the query or ranking) or `invalid_request`.

    Cost: one pass over the columns of what is considered; see `bench/find_million.py`.
    """
    check_kind(kind)
    if not 1 <= limit <= MAX_LIMIT:
        raise TielineError("invalid_request", f"limit {limit} is not between 1 and {MAX_LIMIT:,}", where="limit")
    expression = compile_query(query) if isinstance(query, str) else query
    check_sets(expression, context.sets)
    words = words.strip()
    ordered = read_order(order or ("match" if words else "price"))
    narrowed = narrow(expression, kind)
    chosen, others = postings_of(index, narrowed)
    considered = sum(map(len, chosen)) + sum(map(len, others))
    scores = index.words.scores(words) if words else None
    if scores is not None:
        counted, reasons = _by_words(index, narrowed, scores[0], words, considered, context)
    else:
        counted = _by_postings(index, narrowed, chosen, others, context)
        reasons = _reasons(counted)
    if not narrowed.kinds:
        reasons = [Reason(code="query_no_kind", count=0, values={"attributes": mixed(expression)})]
    is_empty = not len(counted.matched) and expression.terms and scores is None
    return Answer(
        offers=_offers(index, counted.matched, scores, ordered, limit, expression, context),
        considered=considered,
        matched=len(counted.matched),
        reasons=tuple(reasons),
        nearest=_nearest(index, narrowed, chosen + others, context) if is_empty else None,
        as_of_ms=as_of_ms,
    )


def _by_words(
    index: Index, narrowed: Narrowed, found: Integers, words: str, considered: int, context: Context
) -> tuple[Count, list[Reason]]:
    """Count over the rows that hold some of the words; the others are one reason."""
    kinds = index.table.texts("kind")
    codes = [kinds.code(kind) for kind in narrowed.kinds]
    rows = found[np.isin(kinds.codes[found], codes)]
    counted = count([(pieces(index.table, rows), 0)], narrowed.every, index.table, context)
    reasons = _reasons(counted)
    if considered > len(rows):
        reasons.insert(0, Reason(code="words_not_met", count=considered - len(rows), values={"words": words}))
    return counted, reasons


def _by_postings(
    index: Index, narrowed: Narrowed, chosen: list[Posting], others: list[Posting], context: Context
) -> Count:
    """Count over the postings that were chosen; of the others nothing needs to be looked at but their size."""
    groups = [(chunks(index.table, chosen), 1 if narrowed.chooser else 0)]
    unknown = [posting for posting in others if not posting.accelerator]
    if unknown:
        groups.append((chunks(index.table, unknown), 0))
    counted = count(groups, narrowed.every, index.table, context)
    for posting in others:
        if posting.accelerator:
            counted.false[0] += len(posting)
            counted.nearest[0].words[posting.accelerator] += len(posting)
    return counted


def _reasons(counted: Count) -> list[Reason]:
    """False terms in order, then unknown ones in order."""
    reasons = []
    for term, number, nearest in zip(counted.terms, counted.false, counted.nearest, strict=True):
        if number:
            reasons.append(Reason(code="query_not_met", count=number, values=_values(term.text, nearest)))
    for term, number in zip(counted.terms, counted.unknown, strict=True):
        if number:
            reasons.append(Reason(code="query_unknown", count=number, values={"term": term.text}))
    return reasons


def _values(text: str, nearest: Nearest) -> dict[str, int | str]:
    return {"term": text, "nearest": nearest.text} if nearest.text else {"term": text}


def _nearest(index: Index, narrowed: Narrowed, postings: list[Posting], context: Context) -> Relaxation | None:
    return relax(chunks(index.table, postings), narrowed.every, index.table, context)


def _offers(
    index: Index,
    matched: Integers,
    scores: Scores | None,
    order: Order,
    limit: int,
    expression: Expression,
    context: Context,
) -> tuple[Offer, ...]:
    """The first ``limit`` rows as offers."""
    if not len(matched):
        return ()
    relevance: Keys = np.zeros(len(matched))
    if scores is not None:
        relevance = scores[1][np.searchsorted(scores[0], matched)]
    keys, known = (-relevance, None) if order.text == "match" else keys_of(order, index, matched, context)
    ties = index.ties[matched]
    if scores is not None:  # of equal keys the better match goes first
        ties[np.lexsort((ties, -relevance))] = np.arange(len(ties))
    best = first(keys, known, ties, limit)
    rows = matched[best].tolist()
    ranked = order.ranking.parts if order.ranking else ()
    refs = dict.fromkeys([*expression.refs, *(ref for _, ref in ranked)])
    readings = readings_of(index, rows, refs, context)
    if order.scored:
        relevance = keys if known is None else np.where(known, keys, 0)
    return tuple(
        offer(index, row, float(relevance[at]), found)
        for row, at, found in zip(rows, best.tolist(), readings, strict=True)
    )
