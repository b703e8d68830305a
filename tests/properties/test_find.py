"""What holds of every answer, whatever is registered and asked."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.find import Index, find, prepare
from tieline.language import Context, compile_query

SITES = ["cn.a/site/s", "cn.b/site/s", "cn.c/site/s"]
CONTEXT = Context(
    sets={"partners": ["cn.a", "cn.b"]},
    readings=lambda function, point, sites: (
        np.array([400 * (1 + SITES.index(site)) if site in SITES else 0 for site in sites]),
        np.array([site in SITES[:2] for site in sites]),
    ),
)
rows = st.lists(
    st.fixed_dictionaries(
        {"kind": st.just("pool")},
        optional={
            "owner": st.sampled_from(["cn.a", "cn.b", "cn.c"]),
            "site": st.sampled_from(SITES),
            "tier": st.sampled_from(["hub", "region", "edge"]),
            "accelerator": st.sampled_from(["a100", "h20"]),
            "price": st.integers(0, 5).map(lambda price: price * 5_000_000),
            "free": st.integers(0, 8),
            "count": st.sampled_from([4, 8]),
            "is_emulated": st.booleans(),
            "tags": st.sampled_from([(), ("green",), ("green", "fast")]),
        },
    ),
    max_size=25,
)
terms = st.sampled_from(
    [
        "price < 15",
        "price >= 10",
        "price == 5",
        "free >= 3",
        "free <= 5",
        "free == count",
        "count > 4",
        "tier == hub",
        "tier in [hub, edge]",
        "tier != region",
        "accelerator == a100",
        "accelerator in [a100, t4]",
        "owner in partners",
        "is_emulated",
        "has(green)",
        "rtt(here) < 1ms",
        "rtt(here) >= 0.5ms",
        "not (free >= 3 or has(fast))",
        "(price < 10 or not tier == hub)",
    ]
)
queries = st.lists(terms, max_size=5)
orders = st.sampled_from(["price", "free", "name", "newest", "price + rtt(here)", "count - free"])


def indexed(values):
    """An index of some rows."""
    index = Index()
    for number, row in enumerate(values):
        index.put({**row, "id": f"cn.x/pool/p{number}"})
    return index


def ids(answer):
    return [offer.id for offer in answer.offers]


@settings(max_examples=150, deadline=None)
@given(rows, queries, terms, orders)
def test_a_narrower_query_never_returns_more(values, query, term, order):
    index = indexed(values)
    wide = find(index, " and ".join(query), kind="pool", order=order, limit=1_000, context=CONTEXT)
    narrow = find(index, " and ".join([*query, term]), kind="pool", order=order, limit=1_000, context=CONTEXT)
    assert narrow.matched <= wide.matched
    assert ids(narrow) == [one for one in ids(wide) if one in set(ids(narrow))]  # and in the same order
    widened = " or ".join([f"({' and '.join(query)})", term]) if query else ""
    assert set(ids(wide)) <= set(ids(find(index, widened, kind="pool", limit=1_000, context=CONTEXT)))


@settings(max_examples=150, deadline=None)
@given(rows, queries)
def test_what_matches_and_what_is_counted_add_up_to_what_was_considered(values, query):
    index = indexed(values)
    answer = find(index, " and ".join(query), kind="pool", limit=1_000, context=CONTEXT)
    assert answer.considered == len(values)
    assert len(answer.offers) == answer.matched
    assert answer.matched + sum(reason.count for reason in answer.reasons) == answer.considered
    assert all(reason.count > 0 for reason in answer.reasons)
    assert {reason.values["term"] for reason in answer.reasons} <= {term.strip("()") for term in query} | set(query)


@settings(max_examples=150, deadline=None)
@given(rows, queries, st.integers(1, 30))
def test_a_prepared_query_gives_the_beginning_of_the_answer(values, query, count):
    index = indexed(values)
    text = " and ".join(query)
    answer = find(index, text, kind="pool", limit=1_000, context=CONTEXT)
    assert prepare(index, text, kind="pool", context=CONTEXT).ids(count) == ids(answer)[:count]


@settings(max_examples=150, deadline=None)
@given(rows, queries)
def test_an_offer_answers_exactly_when_its_own_values_decide_so(values, query):
    index = indexed(values)
    text = " and ".join(query)
    found = set(ids(find(index, text, kind="pool", limit=1_000, context=CONTEXT)))
    for number, row in enumerate(values):
        rtt = {site: 400 * (1 + at) for at, site in enumerate(SITES[:2])}.get(row.get("site", ""))
        decided = compile_query(text).decide({**row, "rtt(here)": rtt}, CONTEXT.sets)
        assert (decided is True) == (f"cn.x/pool/p{number}" in found)


@settings(max_examples=150, deadline=None)
@given(rows, queries.filter(bool))
def test_the_proposed_change_admits_as_many_as_it_says(values, query):
    index = indexed(values)
    answer = find(index, " and ".join(query), kind="pool", context=CONTEXT)
    nearest = answer.nearest
    if nearest is None:
        return
    assert answer.matched == 0
    assert nearest.admits >= 1
    changed = [
        f"{nearest.term} {_unshown(nearest.needed)}"
        if nearest.needed != "without it" and _is_of(term, nearest)
        else term
        for term in query
        if not (nearest.needed == "without it" and nearest.term in (term, term.strip("()")))
    ]
    assert find(index, " and ".join(changed), kind="pool", context=CONTEXT).matched >= nearest.admits


def _is_of(term, nearest):
    """Whether ``term`` is the one that the change moves."""
    asked = nearest.asked.replace(".00 CNY", "").replace(" ms", "ms").replace("500 us", "0.5ms")
    return term in (f"{nearest.term} {asked}", f"{nearest.term} == {asked}", f"{nearest.term} in [{asked}]")


def _unshown(needed):
    return needed if needed[0] in "<>=" else f"== {needed}"
