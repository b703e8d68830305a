"""Composing: positions, limits and refusals, before any field is looked at."""

from __future__ import annotations

import pytest
import yaml

from tieline.model.error import TielineError
from tieline.model.reason import sentence
from tieline.model.taskfile.compose import MAX_ALIASES, MAX_BYTES, MAX_DEPTH, MAX_DOCUMENTS, MAX_NODES, compose
from tieline.model.taskfile.nodes import Mapping, Scalar, Sequence
from tieline.model.taskfile.problem import Problems


def composed(text: str | bytes):
    problems = Problems("t.yaml")
    documents = compose(text.encode() if isinstance(text, str) else text, problems)
    problems.raise_any()
    return documents


def refusal(text: str | bytes) -> str:
    with pytest.raises(TielineError) as caught:
        composed(text)
    assert caught.value.code == "invalid_task"
    return sentence(caught.value.reasons[0])


def test_positions_count_characters_from_one():
    (document,) = composed('中文: [a, "b"]\nx:\n  - c\n')
    assert isinstance(document, Mapping)
    (key, listed), (_, other) = document.pairs
    assert (key.text, key.at) == ("中文", (1, 1))
    assert [(item.text, item.is_plain, item.at) for item in listed.items] == [("a", True, (1, 6)), ("b", False, (1, 9))]
    assert isinstance(other, Sequence)
    assert other.items[0].at == (3, 5)


@pytest.mark.parametrize("text", ["on", "no", "1:30", "0777", "1e3", "2026-01-31", "0x1F", "1_000", ".inf", "<<x"])
def test_plain_scalars_stay_the_text_that_they_are(text):
    (document,) = composed(f"a: {text}\n")
    assert document.pairs[0][1].text == text


@pytest.mark.parametrize(
    ("text", "is_null"), [("~", True), ("null", True), ("", True), ("'null'", False), ("nil", False)]
)
def test_only_unquoted_nulls_say_nothing(text, is_null):
    (document,) = composed(f"a: {text}\n")
    assert document.pairs[0][1].is_null is is_null


def test_a_byte_order_mark_is_no_part_of_the_first_key():
    (document,) = composed("\ufeffrun: x\n")
    assert document.pairs[0][0].text == "run"


def test_windows_line_ends_are_line_ends():
    (document,) = composed("a: 1\r\nb: 2\r\n")
    assert document.pairs[1][0].at == (2, 1)


def test_bytes_are_bounded():
    assert "at most 1,048,576" in refusal(b"#" * (MAX_BYTES + 1))
    assert composed(b"#" * MAX_BYTES) == ()


def test_documents_are_bounded():
    assert len(composed("---\na: 1\n" * MAX_DOCUMENTS)) == MAX_DOCUMENTS
    assert "more than 100 documents" in refusal("---\na: 1\n" * (MAX_DOCUMENTS + 1))


def test_depth_is_bounded_also_through_aliases():
    assert composed("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert "deeper" in refusal("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    half = MAX_DEPTH // 2 + 1
    deep = "[" * half + "x" + "]" * half
    assert "deeper" in refusal(f"a: &a {deep}\nb: {'[' * half}*a{']' * half}\n")


def test_values_are_bounded():
    assert "20,000" in refusal("[" + "x," * (MAX_NODES + 1) + "]")


def test_aliases_are_bounded_by_number_and_by_what_they_unfold_to():
    assert "aliases" in refusal("a: &a x\nb: [" + "*a," * (MAX_ALIASES + 1) + "]")
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 11))
    assert "20,000 values" in refusal(bomb)


def test_an_anchor_does_not_reach_into_the_next_document():
    assert "`*a` names no anchor" in refusal("a: &a x\n---\nb: *a\n")


def test_a_merge_gives_defaults_and_never_overrides():
    (document,) = composed("a: &a {x: 1, y: 2}\nb: &b {x: 3, z: 4}\nc: {<<: [*a, *b], y: 5}\n")
    merged = {key.text: value.text for key, value in document.pairs[2][1].pairs}
    assert merged == {"x": "1", "z": "4", "y": "5"}


def test_a_merge_of_something_else_is_refused():
    assert "merges mappings only" in refusal("a: {<<: x}\n")


def test_all_duplicates_are_found_with_both_places():
    problems = Problems("t.yaml")
    compose(b"a: 1\nb: {c: 1, c: 2}\na: 2\n", problems)
    assert [sentence(reason) for reason in problems.reasons] == [
        "line 2, column 11: `c` is written twice, first at line 2, column 5",
        "line 3, column 1: `a` is written twice, first at line 1, column 1",
    ]


@pytest.mark.parametrize("tag", ["!!python/name:os.system", "!!python/object/new:os.system", "!!set", "!x", "!!int"])
def test_tags_are_refused(tag):
    assert "is not accepted" in refusal(f"a: {tag} x\n")


@pytest.mark.parametrize("text", ['"\\0"', '"\\ud800"'])
def test_escapes_smuggle_nothing_in(text):
    assert refusal(f"a: {text}\n")


def test_a_tab_inside_a_script_is_part_of_the_script():
    (document,) = composed("run: |\n  cat <<-E\n  \tx\n  E\n")
    assert document.pairs[0][1].text == "cat <<-E\n\tx\nE\n"


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2\nb: 3\n",
        "a: {b: 1\nc: d\n",
        "run: 'abc\nx: 1\n",
        "run: x\n y: z\n",
        "a:\n  - x\n b\n",
        "run: @x\n",
        "a: b\nfoo\nb: c\n",
        "a: |\n    x\n  y\n",
        "a: *",
        "%YAML 9\n---\na: b",
        "a: b\n...\nc: d\n",
        "a: 'x' y\n",
        "a:\n\tb: c\n",
    ],
)
def test_both_of_pyyamls_parsers_are_told_in_the_same_words(text, monkeypatch):
    fast = refusal(text)
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert refusal(text) == fast
    assert "YAML here" not in fast


def test_a_syntax_error_does_not_quote_the_file():
    said = refusal("secrets:\n  TOKEN: do-not-show-me: x\n")
    assert "do-not-show-me" not in said


def test_a_document_may_be_a_scalar_or_a_list():
    assert isinstance(composed("hello")[0], Scalar)
    assert isinstance(composed("- a")[0], Sequence)
