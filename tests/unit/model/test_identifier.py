"""Identifiers: the grammar, and refusals that say what is wrong and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.model.error import TielineError
from tieline.model.identifier import MAX_IDENTIFIER_BYTES, Identifier, checked_prefix, is_under

LABEL = st.from_regex(r"[a-z0-9]+([_-]+[a-z0-9]+)?", fullmatch=True).filter(
    lambda label: len(label) < 20 and not label.startswith("xn--")
)
DOTTED = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
KIND = st.sampled_from(["pool", "site", "dataset", "standard-2"])
IDENTIFIERS = st.builds(Identifier, DOTTED, KIND, DOTTED).filter(lambda one: len(str(one)) <= MAX_IDENTIFIER_BYTES)


@given(IDENTIFIERS)
def test_what_is_written_is_read_back(identifier: Identifier) -> None:
    assert identifier == Identifier.parse(str(identifier))


@given(st.text(max_size=40))
def test_any_text_is_read_exactly_or_refused_with_a_sentence(text: str) -> None:
    refusal = None
    try:
        read = str(Identifier.parse(text))
    except TielineError as error:
        refusal = error
    if refusal is None:
        assert read == text
    else:
        assert (refusal.code, bool(refusal.message), len(refusal.hints)) == ("invalid_identifier", True, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the identifier is empty"),
        ("cn.demo/pool", "has 2 parts separated by `/`, not 3"),
        ("cn.demo/pool/a/b", "has 4 parts"),
        ("cn..demo/pool/a", "prefix `cn..demo` has an empty label at 4"),
        (".cn/pool/a", "has an empty label at 1"),
        ("cn./pool/a", "has an empty label at 4"),
        ("cn/pool/a.", "name `a.` has an empty label at 11"),
        ("cn/pool/", "the name is empty"),
        ("/pool/a", "the prefix is empty"),
        ("cn//a", "kind `` at 4"),
        ("cn/9pool/a", "kind `9pool` at 4"),
        ("cn/pool/-a", "label `-a` at 9 of the name does not begin and end"),
        ("cn_/pool/a", "label `cn_` at 1 of the prefix does not begin and end"),
        ("CN/pool/a", "character `C` (U+0043 LATIN CAPITAL LETTER C) at 1"),
        ("сn/pool/a", "CYRILLIC SMALL LETTER ES"),
        ("cn/pool/a b", "character ` ` (U+0020 SPACE) at 10"),
        ("cn/pool/a\n", "U+000A a control character"),
        ("cn/pool/xn--80ak6aa92e", "hides another alphabet"),
        ("cn/pool/" + "a" * 193, "201 characters is over the limit of 200"),
        (".".join("a" * 17) + "/pool/a", "has 17 labels, at most 16"),
    ],
)
def test_a_bad_identifier_is_refused_with_what_and_where(text: str, said: str) -> None:
    with pytest.raises(TielineError) as caught:
        Identifier.parse(text)
    assert caught.value.code == "invalid_identifier"
    assert said in caught.value.message


def test_the_longest_identifier_passes() -> None:
    text = "cn/pool/" + "a" * 192
    assert len(text) == MAX_IDENTIFIER_BYTES
    assert Identifier.parse(text).name == "a" * 192


def test_a_prefix_is_under_itself_and_its_ancestors_label_by_label() -> None:
    identifier = Identifier.parse("cn.demo.lab7/pool/a100")
    assert identifier.is_under("cn.demo.lab7")
    assert identifier.is_under("cn")
    assert not identifier.is_under("cn.dem")
    assert not identifier.is_under("cn.demo.lab7.x")
    assert not is_under("cn.demo2", "cn.demo")


@pytest.mark.parametrize("text", ["", "cn/", "cn..x", "CN", "cn.-x", ".".join("a" * 17), "xn--a"])
def test_a_bad_prefix_is_refused(text: str) -> None:
    with pytest.raises(TielineError):
        checked_prefix(text)


def test_a_good_prefix_is_given_back() -> None:
    assert checked_prefix("cn.demo.lab-7") == "cn.demo.lab-7"
