"""What is said to people: complete in both languages, with the same values, and each verb's help speaks both."""

import re
import string
from pathlib import Path

import click
import pytest

from tieline.cli import words
from tieline.cli.main import COMMANDS, tieline
from tieline.model.error import CODES
from tieline.model.evidence import Evidence
from tieline.model.job import JobState

OTHERS = ("up", "down", "demo", "exchange-process", "site-process")  # composed elsewhere


def commands():
    """Every command that is ours, with its whole name."""
    context = click.Context(tieline)
    for name in COMMANDS:
        if name in OTHERS:
            continue
        found = tieline.get_command(context, name)
        yield name, found
        if isinstance(found, click.Group):
            for inner in found.list_commands(context):
                yield f"{name} {inner}", found.get_command(context, inner)


def fields(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


@pytest.mark.parametrize("key", words.WORDS)
def test_every_text_is_there_in_both_languages_with_the_same_values(key):
    english, chinese = words.WORDS[key]
    assert english
    assert chinese
    assert fields(english) == fields(chinese)
    assert not re.search("[\u4e00-\u9fff]", english)


def test_every_key_that_the_code_says_is_in_the_catalogue():
    for path in Path(words.__file__).parent.glob("*.py"):
        for key in re.findall(r"""words\.say\(["']([a-z_]+)["'][,)]""", path.read_text()):
            assert key in words.WORDS, f"{path.name}: {key}"


def test_every_key_of_the_catalogue_is_said_somewhere():
    code = "".join(path.read_text() for path in Path(words.__file__).parent.glob("*.py") if path.name != "words.py")
    derived = ("do_", "opt_", "col_", "word_", "code_", "evidence_", "unit_", "tier_", "status_", "check_", "quote_")
    derived += ("peer_", "meets_")
    for key in words.WORDS:
        if key.startswith(("bill_of_", *derived)):
            continue
        assert f'"{key}"' in code.replace("'", '"'), key


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_option_and_every_verb_has_help_in_both_languages(name, command):
    assert f"do_{command.help}" in words.WORDS, name
    for option in command.params:
        if isinstance(option, click.Option):
            assert f"opt_{option.help}" in words.WORDS, f"{name} {option.name}"


def test_every_column_that_a_table_shows_is_in_the_catalogue():
    code = "".join(path.read_text() for path in Path(words.__file__).parent.glob("*.py"))
    for columns in re.findall(r"columns = \(([^)]*)\)|table\.show\(\(([^)]*)\)", code):
        for column in re.findall(r'"([a-z0-9_]+)"', "".join(columns)):
            assert f"col_{column}" in words.WORDS, column


def test_every_state_evidence_and_error_code_has_its_word():
    for state in JobState:
        assert f"word_{state.value}" in words.WORDS
    for evidence in Evidence:
        assert f"evidence_{evidence.value}" in words.WORDS
    for code in CODES:
        assert f"code_{code}" in words.WORDS


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "TIELINE_LANG": "en"}, "en"),
        ({"TIELINE_LANG": "zh"}, "zh"),
    ],
)
def test_the_language_is_the_one_stated_nearest(environment, language, monkeypatch):
    monkeypatch.delenv("LANG", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert words.language() == language
    words.choose("zh")
    assert words.language() == "zh"
    words.choose("")


def test_help_speaks_chinese(call):
    shown = call("--lang", "zh", "--help").stdout
    assert "找·调·用" in shown
    assert "算力任务" in shown
    shown = call("--lang", "zh", "run", "--help").stdout
    assert "每节点核数" in shown
    assert "cores of each node" not in shown
