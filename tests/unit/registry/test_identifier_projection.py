"""Projections: every identifier has exactly one name in each scheme, and comes back from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.model.error import TielineError
from tieline.model.identifier import Identifier
from tieline.registry import PROJECTIONS

LABEL = st.from_regex(r"[a-z0-9]+([_-]+[a-z0-9]+)?", fullmatch=True).filter(
    lambda label: len(label) < 20 and not label.startswith("xn--")
)
DOTTED = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
IDENTIFIERS = st.builds(Identifier, DOTTED, st.sampled_from(["pool", "site", "agent"]), DOTTED)


@pytest.mark.parametrize("scheme", PROJECTIONS)
@given(first=IDENTIFIERS, second=IDENTIFIERS)
def test_a_projection_is_one_to_one(scheme: str, first: Identifier, second: Identifier) -> None:
    row = PROJECTIONS[scheme]
    assert row.from_text(row.to_text(first)) == first
    assert (row.to_text(first) == row.to_text(second)) == (first == second)


@pytest.mark.parametrize("scheme", PROJECTIONS)
@given(text=st.text(alphabet="88.ci:cn/pool_a-", max_size=30))
def test_what_is_read_back_is_written_the_same(scheme: str, text: str) -> None:
    row = PROJECTIONS[scheme]
    written = text
    try:
        written = row.to_text(row.from_text(text))
    except TielineError as error:
        written = text if error.code == "invalid_identifier" else error.code
    assert written == text


def test_the_handle_shaped_name_is_as_documented() -> None:
    identifier = Identifier.parse("cn.demo.lab7/model/llama-3.1")
    assert PROJECTIONS["handle"].to_text(identifier) == "88.cn.demo.lab7/model.llama-3.1"
    assert PROJECTIONS["uri"].to_text(identifier) == "ci:cn.demo.lab7/model/llama-3.1"


@pytest.mark.parametrize(
    ("scheme", "text"),
    [
        ("handle", "86.cn.demo/pool.a"),
        ("handle", "88.cn.demo/pool"),
        ("handle", "88.cn.demo"),
        ("handle", "88.cn.demo/pool.a/b"),
        ("handle", "88.88.cn/"),
        ("handle", "88.CN/pool.a"),
        ("uri", "cn.demo/pool/a"),
        ("uri", "CI:cn.demo/pool/a"),
    ],
)
def test_what_has_not_the_form_is_refused(scheme: str, text: str) -> None:
    with pytest.raises(TielineError) as caught:
        PROJECTIONS[scheme].from_text(text)
    assert caught.value.code == "invalid_identifier"
