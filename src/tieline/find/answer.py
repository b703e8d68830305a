"""`find`: which offers fit, in order, and counted reasons for everything else that was considered."""

from __future__ import annotations

import numpy as np

from tieline.find.count import Count, chunks, count, pieces
from tieline.find.index import Index
from tieline.find.narrow import Narrowed, check_kind, check_sets, mixed, narrow, postings_of
from tieline.find.nearest import Nearest
from tieline.find.order import MOST, Best, Order, by_match, read_order, reader
from tieline.find.posting import Posting
from tieline.find.relax import relax
from tieline.find.shown import offer, readings_of
from tieline.language.context import NOWHERE, Context
from tieline.language.expression import Expression, compile_query
from tieline.model.error import TielineError
from tieline.model.plan import Answer, Offer
from tieline.model.reason import Reason

MAX_LIMIT = 1_000


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
    if words:
        best, reasons = _by_words(index, narrowed, ordered, limit, words, considered, context)
    else:
        best = Best(index, reader(ordered, index, context), limit)
        reasons = _reasons(_by_postings(index, narrowed, chosen, others, context, best))
    if not narrowed.kinds:
        reasons = [Reason(code="query_no_kind", count=0, values={"attributes": mixed(expression)})]
    nearest = None
    if not best.count and expression.terms and not words:
        nearest = relax(chunks(index.table, chosen + others), narrowed.every, index.table, context)
    return Answer(
        offers=_offers(index, best, ordered, expression, context),
        considered=considered,
        matched=best.count,
        reasons=tuple(reasons),
        nearest=nearest,
        as_of_ms=as_of_ms,
    )


def _by_words(
    index: Index, narrowed: Narrowed, order: Order, limit: int, words: str, considered: int, context: Context
) -> tuple[Best, list[Reason]]:
    """Count over the rows that hold some of the words; the others are one reason."""
    found, scores = index.words.scores(words)
    kinds = index.table.texts("kind")
    rows = found[np.isin(kinds.codes[found], [kinds.code(kind) for kind in narrowed.kinds])]
    read = by_match(found, scores) if order.text == "match" else reader(order, index, context)
    best = Best(index, read, limit)
    reasons = _reasons(count([(pieces(index.table, rows), 0)], narrowed.every, index.table, context, best))
    if considered > len(rows):
        reasons.insert(0, Reason(code="words_not_met", count=considered - len(rows), values={"words": words}))
    return best, reasons


def _by_postings(
    index: Index, narrowed: Narrowed, chosen: list[Posting], others: list[Posting], context: Context, best: Best
) -> Count:
    """Count over the postings that were chosen; of the others nothing needs to be looked at but their size."""
    groups = [(chunks(index.table, chosen), 1 if narrowed.chooser else 0)]
    unknown = [posting for posting in others if not posting.accelerator]
    if unknown:
        groups.append((chunks(index.table, unknown), 0))
    counted = count(groups, narrowed.every, index.table, context, best)
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


def _offers(index: Index, best: Best, order: Order, expression: Expression, context: Context) -> tuple[Offer, ...]:
    """The best rows as offers."""
    rows, keys = best.taken()
    readings = readings_of(index, rows.tolist(), dict.fromkeys([*expression.refs, *order.refs]), context)
    scores = [0.0] * len(rows)
    if order.text == "match":
        scores = [-float(key) for key in keys]
    elif order.is_scored:
        scores = [float(key) if abs(key) < MOST else 0.0 for key in keys]
    return tuple(
        offer(index, row, score, found) for row, score, found in zip(rows.tolist(), scores, readings, strict=True)
    )
