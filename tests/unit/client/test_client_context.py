"""Contexts: which exchange, from the nearest statement; kept whole, and for this user's eyes only."""

import pytest

from tieline.client import context
from tieline.client.context import Context, chosen
from tieline.model.error import TielineError

ONE, TWO = Context(url="http://127.0.0.1:1", token="one"), Context(url="http://127.0.0.1:2", token="two")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TIELINE_HOME", str(tmp_path / "home"))
    for name in ("TIELINE_EXCHANGE", "TIELINE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def test_the_one_kept_last_is_used_and_another_can_be_named(monkeypatch):
    context.keep("one", ONE)
    context.keep("two", TWO)
    assert chosen() == TWO
    assert chosen("one") == ONE
    monkeypatch.setenv("TIELINE_EXCHANGE", "one")
    assert chosen() == ONE
    assert chosen("two") == TWO


def test_a_url_is_a_context_of_its_own_with_the_token_of_the_environment(monkeypatch):
    monkeypatch.setenv("TIELINE_TOKEN", "t")
    assert chosen("https://exchange.example:7070") == Context(url="https://exchange.example:7070", token="t")


def test_a_token_of_the_environment_replaces_the_stored_one(monkeypatch):
    context.keep("one", ONE)
    monkeypatch.setenv("TIELINE_TOKEN", "other")
    assert chosen().token == "other"
    assert context.read().contexts["one"].token == "one"


def test_without_any_the_ways_to_one_are_told():
    with pytest.raises(TielineError, match="no exchange is known yet") as refused:
        chosen()
    assert refused.value.hints
    with pytest.raises(TielineError, match="no context `x`"):
        chosen("x")


def test_what_is_forgotten_is_gone_and_another_becomes_current():
    context.keep("one", ONE)
    context.keep("two", TWO)
    context.forget("two")
    assert chosen() == ONE


def test_nobody_else_can_read_the_tokens(home):
    context.keep("one", ONE)
    assert (home / "contexts.json").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o077 == 0
    assert [path.name for path in home.iterdir()] == ["contexts.json"]


def test_a_broken_file_is_told_and_not_overwritten(home):
    home.mkdir()
    (home / "contexts.json").write_text("{")
    with pytest.raises(TielineError, match="cannot be read") as refused:
        context.keep("one", ONE)
    assert refused.value.hints
    assert (home / "contexts.json").read_text() == "{"
