"""The columnar table against a plain dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tieline.language.attributes import OFFER
from tieline.language.column import SLACK, TextColumn, WordsColumn
from tieline.language.table import MAX_METRICS, Table

KEYS = st.sampled_from([f"k{number}" for number in range(12)])
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "price": st.integers(0, 10**12),
        "free": st.integers(0, 64),
        "owner": st.sampled_from(["cn.a", "cn.b", "cn.c"]),
        "is_emulated": st.booleans(),
        "tags": st.sampled_from([(), ("a",), ("a", "b"), ("c",)]),
        "label": st.sampled_from([{}, {"x": "1"}, {"x": "2", "y": "="}]),
    },
)


class TableMachine(RuleBasedStateMachine):
    """Rows are added, replaced, changed and removed in any order."""

    def __init__(self):
        super().__init__()
        self.table = Table(OFFER, capacity=8)
        self.model = {}

    @rule(key=KEYS, values=VALUES)
    def put(self, key, values):
        self.table.put(key, values)
        self.model[key] = dict(values)

    @rule(key=KEYS, values=VALUES)
    def update(self, key, values):
        assert self.table.update(key, values) == (key in self.model)
        if key in self.model:
            self.model[key].update(values)

    @rule(key=KEYS)
    def remove(self, key):
        assert (self.table.remove(key) is None) == (key not in self.model)
        self.model.pop(key, None)

    @rule(keys=st.lists(KEYS, unique=True), value=st.integers(0, 9))
    def set_many(self, keys, value):
        rows = self.table.rows_of(keys)
        self.table.set_integers("free", rows, np.full(len(rows), value))
        for key in keys:
            if key in self.model:
                self.model[key]["free"] = value

    @invariant()
    def agrees(self):
        assert len(self.table) == len(self.model)
        assert sorted(self.table.key(row) for row in self.table.rows().tolist()) == sorted(self.model)
        for key, values in self.model.items():
            row = self.table.row(key)
            assert self.table.values(row) == values
            assert self.table.key(row) == key


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=30)


def test_many_rows_are_added_at_once_and_found_by_key():
    table = Table(OFFER)
    table.put("first", {"price": 1})
    span = table.extend(["a", "b"], {"price": np.array([5, 6]), "owner": ["x", None], "free": [None, 3]})
    assert [table.values(row) for row in span] == [{"price": 5, "owner": "x"}, {"price": 6, "free": 3}]
    for keys, columns in ((["a"], {}), (["c", "c"], {}), (["c"], {"price": [1, 2]})):
        with pytest.raises(ValueError, match=r"twice|length"):
            table.extend(keys, columns)
    assert len(table) == 3


def test_an_attribute_that_is_not_there_and_an_integer_beyond_63_bits_are_errors():
    table = Table(OFFER)
    with pytest.raises(KeyError):
        table.put("a", {"prise": 1})
    with pytest.raises(OverflowError):
        table.put("b", {"price": 2**64})


def test_metrics_have_columns_up_to_a_limit():
    table = Table(OFFER)
    for number in range(MAX_METRICS + 5):
        table.put(f"m{number}", {"metric": {f"name{number}": number}})
    assert table.value("metric", table.row("m3"), "name3") == 3
    assert table.value("metric", table.row("m36"), "name36") is None
    assert sum(name.startswith("metric(") for name in table.columns) == MAX_METRICS


def test_words_that_no_row_says_any_more_are_dropped_in_the_end():
    texts, words = TextColumn(8), WordsColumn(8)
    for number in range(3 * SLACK):
        texts.set(number % 4, f"text {number}")
        words.set(number % 4, (f"word {number}", "same"))
    assert len(texts.texts) <= SLACK + 32
    assert len(words.sets) <= SLACK + 32
    assert texts.generation > 0
    assert [texts.get(row) for row in range(4)] == [f"text {3 * SLACK - 4 + row}" for row in range(4)]
    assert texts.get(5) is None
    assert words.get(1) == ("same", f"word {3 * SLACK - 3}")
    assert words.holders("same").sum() == len(words.sets) - 1
    assert not words.holders("word 1").any()
