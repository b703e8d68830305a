"""Three-valued evaluation, over columns and over plain values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.language import Context, compile_policy, compile_query
from tieline.language.attributes import DEMAND, OFFER
from tieline.language.table import Table

TRUTH = {"true": True, "false": False, "unknown": None}


def truth_table(op):
    """Kleene's tables: false is less than unknown is less than true."""
    order = [False, None, True]
    pick = min if op == "and" else max
    return {(a, b): order[pick(order.index(a), order.index(b))] for a in order for b in order}


@pytest.mark.parametrize(("op", "left", "right"), list(itertools.product(("and", "or"), TRUTH, TRUTH)))
def test_and_and_or_follow_kleene_on_scalars_and_on_columns(op, left, right):
    values = {"has_door": TRUTH[left], "is_emulated": TRUTH[right]}
    expected = truth_table(op)[TRUTH[left], TRUTH[right]]
    query = compile_query(f"has_door {op} is_emulated")
    negated = compile_query(f"not (has_door {op} is_emulated)")
    assert query.decide(values) is expected
    assert negated.decide(values) is (None if expected is None else not expected)
    table = Table(OFFER)
    table.put("row", values)
    for one, wanted in ((query, expected), (negated, None if expected is None else not expected)):
        yes, unknown = one.evaluate(table)
        assert (bool(yes[0]), bool(unknown[0])) == (wanted is True, wanted is None)


ROW = {
    "price": 10_000_000,
    "free": 4,
    "count": 8,
    "owner": "cn.demo.a",
    "tags": ("green", "fast"),
    "is_emulated": False,
    "label": {"rack": "r7"},
    "evidence": {"price": "measured"},
    "metric": {"accuracy": 970_000},
    "site": "s1",
    "updated": 1_700_000_000_000,
}
CASES = {
    "price < 10": False,
    "price <= 10": True,
    "price == 10": True,
    "price != 10": False,
    "price >= 10.000001": False,
    "price in [9, 10]": True,
    "price not in [9, 10]": False,
    "free < count": True,
    "free == count": False,
    "cores < count": None,
    "memory > 1GB": None,
    "not memory > 1GB": None,
    "memory > 1GB or price == 10": True,
    "memory > 1GB and price != 10": False,
    "owner == cn.demo.a": True,
    "owner != cn.demo.a": False,
    "owner == cn.demo.b": False,
    "owner in [cn.demo.b, cn.demo.a]": True,
    "owner in partners": True,
    "owner not in partners": False,
    "owner in strangers": False,
    "owner in nobody": None,
    "tier == hub": None,
    "tier != hub": None,
    "green in tags": True,
    "red in tags": False,
    "red not in tags": True,
    "container in engines": None,
    "is_emulated": False,
    "not is_emulated": True,
    "is_emulated == false": True,
    "is_emulated != false": False,
    "has_door": None,
    "label(rack) == r7": True,
    "label(rack) != r7": False,
    "label(rack) in [r6, r7]": True,
    "label(rack) in partners": False,
    "label(row) == r7": None,
    "evidence(price) == measured": True,
    "evidence(free) == measured": None,
    "metric(accuracy) >= 0.97": True,
    "metric(recall) >= 0.97": None,
    "rtt(here) < 1ms": True,
    "rtt(here) >= 1ms": False,
    "rtt(there) < 1ms": None,
    "bandwidth(here) >= 1Gbps": None,
    "updated > '2023-01-01'": True,
}


@pytest.mark.parametrize("text", CASES)
def test_each_form_decides_the_same_on_plain_values_and_on_columns(text):
    sets = {"partners": ["cn.demo.a", "cn.demo.z"], "strangers": ["cn.demo.x"]}
    query = compile_query(text)
    assert query.decide({**ROW, "rtt": {"here": 900}}, sets) is CASES[text]
    table = Table(OFFER)
    table.put("other", {"site": "s0"})
    row = table.put("row", ROW)

    def readings(function, point, sites):
        values = np.array([900 if (function, point, site) == ("rtt", "here", "s1") else 0 for site in sites])
        return values, values > 0

    verdict = query.evaluate(table, np.array([row]), Context(sets=sets, readings=readings))
    assert (bool(verdict.yes[0]), bool(verdict.unknown[0])) == (CASES[text] is True, CASES[text] is None)


def test_readings_are_asked_once_per_point_and_again_when_there_are_new_sites():
    calls = []

    def readings(function, point, sites):
        calls.append((function, point, tuple(sites)))
        return np.full(len(sites), 500), np.ones(len(sites), bool)

    table = Table(OFFER)
    table.put("a", {"site": "s1"})
    context = Context(readings=readings)
    query = compile_query("rtt(x) < 1ms and rtt(x) > 0.1ms and bandwidth(x) > 0")
    for _ in range(3):
        assert query.evaluate(table, None, context).yes.tolist() == [True]
    assert calls == [("rtt", "x", ("", "s1")), ("bandwidth", "x", ("", "s1"))]
    table.put("b", {"site": "s2"})
    table.put("c", {})
    yes, unknown = query.evaluate(table, None, context)
    assert (yes.tolist(), unknown.tolist()) == ([True, True, False], [False, False, True])
    assert len(calls) == 4


def test_one_context_serves_tables_that_give_their_sites_other_codes():
    context = Context(
        readings=lambda _function, _point, sites: (
            np.array([500 if site == "near" else 5_000 for site in sites]),
            [True] * len(sites),
        )
    )
    query = compile_query("rtt(x) < 1ms")
    for keys in (("near", "far"), ("far", "near"), ("near", "far")):
        table = Table(OFFER)
        for key in keys:
            table.put(key, {"site": key})
        assert query.evaluate(table, None, context).yes.tolist() == [key == "near" for key in keys]


def test_a_value_of_another_type_is_unknown_to_a_policy_and_never_admits():
    policy = compile_policy("cores <= 4 and user == alice and signed and gpu_ in data_class or priority > 3")
    assert policy.decide({"cores": "2", "user": 7, "signed": 1, "data_class": "gpu_", "priority": True}) is None
    assert policy.decide({}) is None
    assert compile_policy("").decide({}) is True


def test_removed_rows_are_neither_yes_nor_unknown():
    table = Table(OFFER)
    for key in "abc":
        table.put(key, {"price": 1})
    table.remove("b")
    yes, unknown = compile_query("not price > 5").evaluate(table)
    assert (yes.tolist(), unknown.tolist()) == ([True, False, True], [False, False, False])
    yes, unknown = compile_query("").evaluate(table)
    assert yes.tolist() == [True, False, True]


def test_an_expression_over_no_rows_gives_no_verdicts():
    yes, unknown = compile_query("price < 3 and owner in partners or has(x)").evaluate(Table(OFFER))
    assert (len(yes), len(unknown)) == (0, 0)


LEAVES = [
    "user == alice",
    "user != alice",
    "user in [alice, bob]",
    "user_owner in partners",
    "cores <= 4",
    "cores == 2",
    "memory in [1GB, 2GB]",
    "priority > -3",
    "cores < nodes",
    "signed",
    "is_trusted == false",
    "core in data_class",
    "label(team) == red",
]
expressions = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda part: f"({part[0]} {part[1]} {part[2]})"),
        inner.map(lambda part: f"not ({part})"),
    ),
    max_leaves=8,
)
demands = st.fixed_dictionaries(
    {},
    optional={
        "user": st.sampled_from(["alice", "bob", "carol"]),
        "user_owner": st.sampled_from(["cn.a", "cn.b"]),
        "cores": st.integers(0, 6),
        "nodes": st.integers(1, 3),
        "memory": st.sampled_from([10**9, 2 * 10**9, 3 * 10**9]),
        "priority": st.integers(-5, 5),
        "signed": st.booleans(),
        "is_trusted": st.booleans(),
        "data_class": st.sampled_from([(), ("core",), ("core", "general")]),
        "label": st.sampled_from([{}, {"team": "red"}, {"team": "blue"}]),
    },
)


@settings(max_examples=300)
@given(expressions, st.lists(demands, max_size=6))
def test_columns_and_plain_values_always_agree(text, rows):
    policy = compile_policy(text)
    sets = {"partners": frozenset({"cn.a"})}
    table = Table(DEMAND)
    for number, row in enumerate(rows):
        table.put(str(number), row)
    yes, unknown = policy.evaluate(table, None, Context(sets=sets))
    decided = [policy.decide(row, sets) for row in rows]
    assert [True if a else None if b else False for a, b in zip(yes.tolist(), unknown.tolist(), strict=True)] == decided
