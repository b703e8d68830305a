"""The policy table says what is built, in both languages, with tests and commands that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tieline.api.app import OPERATIONS
from tieline.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {"en": DOCS / "policy.md", "zh": DOCS / "zh" / "policy.md"}
STATES = {"en": r"built|in part: \S.*", "zh": r"已实现|部分实现：\S.*"}


def table(lang: str) -> list[list[str]]:
    rows = re.findall(r"^\| [A-Z]\d\d .*\|$", PAGES[lang].read_text(), re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def asked() -> dict[str, str]:
    """The sentence of every row that the policy documents hold."""
    lines = (DOCS / "policy_rows.tsv").read_text().splitlines()[1:]
    return {cells[0]: cells[3] for cells in (line.split("\t") for line in lines)}


@cache
def names_in(path: str) -> tuple[str, ...]:
    tree = ast.parse((ROOT / path).read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return tuple(node.name for node in found)


@pytest.mark.parametrize("lang", PAGES)
def test_every_row_quotes_the_sentence_of_its_policy_and_stands_once(lang):
    sentences = asked()
    assert len(sentences) > 200
    rows = table(lang)
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    assert [(row[0], row[1]) for row in rows if sentences.get(row[0]) != row[1]] == []


@pytest.mark.parametrize("lang", PAGES)
def test_every_row_says_what_is_here_and_in_part_says_what_is_missing(lang):
    for row in table(lang):
        assert len(row) == 6, row[0]
        assert all(row), row[0]
        assert re.fullmatch(STATES[lang], row[5]), row


@pytest.mark.parametrize("lang", PAGES)
def test_every_test_that_a_row_cites_exists(lang):
    for row in table(lang):
        cited = re.findall(r"`(tests/\S+?\.py)::(\w+)`", row[4])
        assert cited, row[0]
        for path, name in cited:
            assert (ROOT / path).is_file(), (row[0], path)
            assert name in names_in(path), (row[0], path, name)


@pytest.mark.parametrize("lang", PAGES)
def test_every_command_and_operation_that_a_row_names_exists(lang):
    labels = {operation.label for operation in OPERATIONS}
    for row in table(lang):
        named = re.findall(r"`([^`]+)`", row[3])
        assert named or "](" in row[3], row[0]
        for text in named:
            words = text.split()
            assert text in labels or (words[0] == "tieline" and words[1] in COMMANDS), (row[0], text)


def test_both_languages_list_the_same_rows_tests_and_states():
    def facts(lang: str) -> list[tuple[str, str, bool, list[str]]]:
        built = {"en": "built", "zh": "已实现"}[lang]
        return [(row[0], row[4], row[5] == built, re.findall(r"`([^`]+)`", row[3])) for row in table(lang)]

    assert facts("en") == facts("zh")
