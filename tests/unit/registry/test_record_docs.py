"""The page on identifiers and records tells the truth: its tables are complete and its example runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tieline.model.error import TielineError
from tieline.model.identifier import Identifier
from tieline.model.kinds import KINDS
from tieline.model.rule import RULES
from tieline.registry import PROJECTIONS

PAGE = (Path(__file__).parents[3] / "docs" / "concepts" / "identifiers-and-records.md").read_text()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_listed_with_its_sentences(rule: str) -> None:
    english, chinese = RULES[rule]
    assert f"| `{rule}` | {english} | {chinese} |" in PAGE


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_listed(kind: str) -> None:
    assert f"| `{kind}` | {KINDS[kind].zh} |" in PAGE


def test_every_projection_is_listed_with_a_true_example() -> None:
    for row in PROJECTIONS.values():
        example = row.to_text(Identifier.parse("cn.demo.lab7/pool/a100"))
        assert f"`{row.form}` | `{example}`" in PAGE


def test_the_example_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "identifiers-and-records.md", "exec"), names)
    assert len(names["catalogue"]) == 2


def test_the_refusals_that_are_shown_are_the_ones_that_are_given() -> None:
    shown = re.findall(r"^invalid_identifier: (.*)$", PAGE, re.MULTILINE)
    given = []
    for text in ("Сn.demo/pool/a", "cn..demo/pool/a"):
        with pytest.raises(TielineError) as caught:
            Identifier.parse(text)
        given.append(caught.value.message)
    assert shown == given
