"""What may be written, what it means, and how everything else is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.language import compile_policy, compile_query, compile_ranking, is_query
from tieline.language.expression import CACHED, _compiled
from tieline.model.error import TielineError

CANONICAL = {
    "npu >= 8 and rtt(shanghai) < 1ms and price < 20 and owner in partners": (
        'npu >= 8 and rtt("shanghai") < 1ms and price < 20 CNY and owner in partners'
    ),
    "price<3.2 CNY": "price < 3.2 CNY",
    "price < 320fen": "price < 3.2 CNY",
    "20 > price": "price < 20 CNY",
    "price = 3": "price == 3 CNY",
    "price <> 3": "price != 3 CNY",
    "price ≠ 3 and price ≤ 5 and price ≥ 1": "price != 3 CNY and price <= 5 CNY and price >= 1 CNY",
    "memory >= 24GB": "memory >= 24GB",
    "memory >= 24 GiB": "memory >= 25769803776B",
    "memory > 0": "memory > 0",
    "bandwidth(beijing) >= 10Gbit/s": 'bandwidth("beijing") >= 10Gbps',
    "rtt('a b') < 1500us": 'rtt("a b") < 1500us',
    "tier == hub": 'tier == "hub"',
    "tier in [hub, 'region']": 'tier in ["hub", "region"]',
    "tier in (hub, region,)": 'tier in ["hub", "region"]',
    "tier not in [edge]": 'tier not in ["edge"]',
    "not tier in [edge]": 'tier not in ["edge"]',
    "owner not in partners": "owner not in partners",
    "green in tags": '"green" in tags',
    "green not in tags": '"green" not in tags',
    "has(green)": '"green" in tags',
    "not has(green)": '"green" not in tags',
    '"a in b" not in tags': 'not "a in b" in tags',
    "is_emulated": "is_emulated == true",
    "is_emulated != true": "is_emulated != true",
    "not is_emulated": "not is_emulated == true",
    "free == count": "free == count",
    "price in [1, 2.5]": "price in [1 CNY, 2.5 CNY]",
    "updated >= '2026-01-31'": 'updated >= "2026-01-31"',
    "updated >= '2026-01-31T08:00+08:00'": 'updated >= "2026-01-31"',
    "label(rack) == r7": 'label("rack") == "r7"',
    "evidence(价格) == measured": 'evidence("price") == "measured"',
    "metric(accuracy) > 0.97": 'metric("accuracy") > 0.97',
    "价格 < 20元 and 空闲 >= 2": "price < 20 CNY and free >= 2",
    "标题 == 数字分类": 'title == "数字分类"',
    "accelerator == A100-80GB": 'accelerator == "a100"',
    "accelerator in [昇腾910B, 'NVIDIA H100 80GB HBM3']": 'accelerator in ["ascend-910b", "h100"]',
    "architecture == arm64": 'architecture == "aarch64"',
    "id == cn.demo.lab7/pool/a100": 'id == "cn.demo.lab7/pool/a100"',
    r'title == "say \"hi\" \\ bye"': r'title == "say \"hi\" \\ bye"',
    "free >= 1 or free >= 2 and not (free >= 3 or has(x))": (
        'free >= 1 or free >= 2 and not (free >= 3 or "x" in tags)'
    ),
    "(free >= 1 or has(x)) and (free >= 2 and free >= 3)": ('(free >= 1 or "x" in tags) and free >= 2 and free >= 3'),
    "free >= -1 AND has(x) OR NOT is_emulated": 'free >= -1 and "x" in tags or not is_emulated == true',
    "order_ in tags": '"order_" in tags',
    " \n\tfree\n>=\n1 ": "free >= 1",
}


@pytest.mark.parametrize(("text", "canonical"), CANONICAL.items())
def test_one_canonical_text_stands_for_all_spellings(text, canonical):
    query = compile_query(text)
    assert query.canonical() == canonical
    assert compile_query(canonical).canonical() == canonical


REFUSED = {
    # text: (where, words of the message, hint)
    "price < 1ms": ("line 1, column 9", "`price` is a money, `ms` counts a duration", "write `price < 20 CNY`"),
    "rtt(a) < 20 CNY": ("line 1, column 10", "is a duration, `CNY` counts a money", "write `rtt(a) < 1ms`"),
    "memory > 24": ("line 1, column 10", "a size needs its unit", "write `memory < 24GB`"),
    "count > 8GB": ("line 1, column 9", "is a count, `GB` counts a size", ""),
    "count > 8 cards": ("line 1, column 9", "a count has no unit", ""),
    "memory < 3GHz": ("line 1, column 10", "`GHz` is not a unit of size", ""),
    "count < 3.5": ("line 1, column 9", "not a whole number", ""),
    "price < 9007199255 CNY": ("line 1, column 9", "larger than 2^53 - 1", ""),
    "prise < 20": ("line 1, column 1", "`prise` is not an attribute of offers", "did you mean `price`?"),
    "npu >= 8 and\n  prise < 20": ("line 2, column 3", "`prise` is not an attribute", "did you mean `price`?"),
    "价格 < 20 and 价 > 1": ("line 1, column 13", "`价` is not an attribute", ""),
    "rtt < 1ms": ("line 1, column 1", "`rtt` is a function", "write `rtt(point)`"),
    "price(a) < 1": ("line 1, column 1", "`price` is not a function", "write `price`"),
    "evidence(prise) == measured": ("line 1, column 10", "not an attribute", "did you mean `price`?"),
    "tags == green": ("line 1, column 1", "is a set of words", "write `word in tags`"),
    "owner < 'x'": ("line 1, column 1", "it has no order", ""),
    "owner in price": ("line 1, column 10", "`price` is a money, not a set", ""),
    "price in partners": ("line 1, column 1", "named sets hold texts", ""),
    "tags in [a]": ("line 1, column 1", "`tags` is a words", "write `word in tags`"),
    "is_emulated in [true]": ("line 1, column 1", "`is_emulated` is a flag", ""),
    "is_emulated == maybe": ("line 1, column 16", "is true or false", ""),
    "free": ("line 1, column 1", "`free` is a count, not true or false", "write `free == 8`"),
    "tags": ("line 1, column 1", "not true or false", "write `word in tags`"),
    "8 < 9": ("line 1, column 1", "both sides are fixed", ""),
    "price < memory": ("line 1, column 9", "`price` is a money, `memory` is a size", ""),
    "price < cheap": ("line 1, column 9", "`cheap` is not an attribute", ""),
    "accelerator == 910b": ("line 1, column 16", "a text must stand here", 'write `"910b"`'),
    "updated > '2026-13-01'": ("line 1, column 11", "is an instant", ""),
    "updated > 20": ("line 1, column 11", "a text must stand here", ""),
    "price < ": ("line 1, column 9", "the end of the expression cannot stand here", ""),
    "< 3": ("line 1, column 1", "`<` cannot stand here", ""),
    "1 < free < 3": ("line 1, column 10", "`<` cannot stand here", "comparisons do not chain"),
    "free >= 1 & free < 3": ("line 1, column 11", "`&` cannot stand here", "write `and`"),
    "free >= 1 || free < 3": ("line 1, column 11", "`|` cannot stand here", "write `or`"),
    "!is_emulated": ("line 1, column 1", "`!` cannot stand here", "write `not`"),
    "has(a, b)": ("line 1, column 6", "`,` cannot stand here", ""),
    "has()": ("line 1, column 5", "`)` cannot stand here", ""),
    "tier in []": ("line 1, column 10", "`]` cannot stand here", ""),
    "title == 'open": ("line 1, column 10", "the quote is not closed", ""),
    "digit classifier": ("line 1, column 7", "`classifier` cannot stand here", ""),
    "free >= 1; drop": ("line 1, column 10", "`;` cannot stand here", ""),
    "__import__('os') == x": ("line 1, column 1", "is not an attribute of offers", ""),
    "price < 0x10": ("line 1, column 9", "`x10` is not a unit of money", ""),
    "price < 1e9": ("line 1, column 9", "`e9` is not a unit of money", ""),
    "price < ١": ("line 1, column 9", "cannot stand here", ""),
    "free >= 1\x00": ("line 1, column 10", "cannot stand here", ""),
    "title == '" + "x" * 401 + "'": ("line 1, column 10", "at most 400 characters", ""),
    "x" * 4_001: ("line 1, column 4001", "4,001 characters, at most 4,000", ""),
    "(" * 100: ("line 1, column 65", "nested deeper than 64", ""),
    "not " * 100 + "is_emulated": ("line 1, column 261", "nested deeper than 64", ""),
    "free in [" + "1," * 1_500 + "1]": ("line 1, column 1", "at most 1,000 are allowed", "named set"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_everything_else_is_refused_with_its_place_and_a_way_out(text):
    where, words, hint = REFUSED[text]
    with pytest.raises(TielineError) as refusal:
        compile_query(text)
    error = refusal.value
    assert (error.code, error.where) == ("invalid_expression", where)
    assert words in error.message
    assert hint in " ".join(error.hints)


def test_the_caret_stands_below_the_place_also_after_wide_characters():
    with pytest.raises(TielineError) as refusal:
        compile_query("价格 < 20 and prise < 3")
    shown, carets = refusal.value.message.splitlines()[1:]
    assert shown == "  价格 < 20 and prise < 3"
    assert carets == "  " + " " * (len("价格 < 20 and ") + 2) + "^^^^^"


def test_a_long_line_is_shown_around_the_place():
    text = " and ".join(["free >= 1"] * 100) + " and prise < 1"
    with pytest.raises(TielineError) as refusal:
        compile_query(text)
    shown, carets = refusal.value.message.splitlines()[1:]
    assert len(shown) < 110
    assert shown[carets.index("^") :].startswith("prise")


def compiled(text):
    """The query, or the refusal."""
    try:
        return compile_query(text)
    except TielineError as error:
        return error


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_any_text_compiles_or_is_refused_with_a_place(text):
    found = compiled(text)
    if isinstance(found, TielineError):
        assert found.code == "invalid_expression"
        assert found.where.startswith("line ")


TOKENS = "price free tags owner rtt has partners ( ) [ ] , and or not in < == >= 1 20 1ms 'x' is_emulated - shanghai"


@settings(max_examples=500)
@given(st.lists(st.sampled_from(TOKENS.split()), max_size=25))
def test_any_order_of_words_compiles_to_a_tree_that_its_canonical_text_gives_again(tokens):
    found = compiled(" ".join(tokens))
    if isinstance(found, TielineError):
        assert found.code == "invalid_expression"
        return
    assert compile_query(found.canonical()).canonical() == found.canonical()
    assert [term.text for term in found.terms] == [term.text.strip() for term in found.terms]


def test_terms_keep_their_source_text_and_say_what_bounds_them():
    query = compile_query("npu>=8 and (price < 20 or has(cheap)) and rtt( shanghai ) < 1ms")
    assert [term.text for term in query.terms] == ["npu>=8", "price < 20 or has(cheap)", "rtt( shanghai ) < 1ms"]
    bounds = [term.bound for term in query.terms]
    assert bounds[1] is None
    assert (bounds[0].ref.key, bounds[0].op, bounds[0].value) == ("npu", ">=", 8)
    assert (bounds[2].ref.key, bounds[2].op, bounds[2].value) == ("rtt(shanghai)", "<", 1_000)


def test_the_sets_attributes_and_kinds_of_a_query_are_known():
    query = compile_query("owner in partners and owner not in banned and price < 3")
    assert query.sets == ("partners", "banned")
    assert [ref.key for ref in query.refs] == ["owner", "price"]
    assert query.kinds == {"pool"}
    assert compile_query("size > 1GB").kinds == {"dataset", "model"}
    assert compile_query("size > 1GB or npu > 1").kinds == {"dataset", "model", "pool"}
    assert compile_query("kind == site or kind in [pool, agent]").kinds == {"site", "pool", "agent"}
    assert compile_query("size > 1GB and npu > 1").kinds == frozenset()
    assert "agent" in compile_query("").kinds


def test_the_tree_is_written_as_json_in_base_units():
    assert compile_query("price < 20 and not tier in [hub]").to_json() == {
        "subject": "offer",
        "tree": {
            "node": "and",
            "items": [
                {
                    "node": "compare",
                    "ref": {"name": "price", "type": "money", "argument": "", "is_function": False},
                    "op": "<",
                    "value": 20_000_000,
                },
                {
                    "node": "not",
                    "item": {
                        "node": "among",
                        "ref": {"name": "tier", "type": "text", "argument": "", "is_function": False},
                        "values": ["hub"],
                    },
                },
            ],
        },
    }


def test_a_policy_speaks_of_demands_and_a_query_of_offers():
    assert compile_policy("user_owner in partners and accelerators <= 8 and duration <= 4h").canonical() == (
        "user_owner in partners and accelerators <= 8 and duration <= 4h"
    )
    with pytest.raises(TielineError, match="not an attribute of demands"):
        compile_policy("npu >= 8")
    with pytest.raises(TielineError, match="not an attribute of offers"):
        compile_query("user == alice")


def test_rankings_are_sums_of_numbers():
    ranking = compile_ranking("price + 0.5 * rtt(shanghai) - free*2")
    assert [(weight, ref.key) for weight, ref in ranking.parts] == [
        (1.0, "price"),
        (0.5, "rtt(shanghai)"),
        (-2.0, "free"),
    ]
    assert [weight for weight, _ in compile_ranking("-free").parts] == [-1.0]
    for text, words in {
        "owner": "answers are ranked by numbers",
        "": "the end of the expression",
        "price < 3": "`<` cannot stand here",
        "price * rtt(x)": "cannot stand here",
        "prise": "is not an attribute",
    }.items():
        with pytest.raises(TielineError, match=words):
            compile_ranking(text)


def test_equal_texts_share_one_compiled_expression_and_few_are_kept():
    assert compile_query("free >= 1") is compile_query("free >= 1")
    assert _compiled.cache_info().maxsize == CACHED


def test_words_are_told_from_expressions():
    assert [is_query(text) for text in ("price<20", "owner in partners", "a in tags", "is_emulated", "has(x)")] == [
        True
    ] * 5
    assert [is_query(text) for text in ("digit classifier", "手写数字 分类", "price list", "cats and dogs", "")] == [
        False
    ] * 5


def test_a_site_that_decides_policies_loads_neither_numpy_nor_a_grammar_before_it_needs_it():
    code = (
        "import sys; from tieline.language import compile_policy; assert 'lark' not in sys.modules;"
        "assert compile_policy('cores <= 4').decide({'cores': 2}); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
