"""The table of what a hostile peer can do names rules and reasons that there are, and tests that hold each row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tieline.model.error import CODES
from tieline.model.reason import CATALOGUE
from tieline.model.rule import RULES

ROOT = Path(__file__).parents[2]
ATTACKS = (
    "again",
    "reorders",
    "cuts",
    "changes a byte",
    "another owner",
    "more than its quota",
    "goes back",
    "stalls",
    "10 GB",
)


def rows() -> list[list[str]]:
    text = (ROOT / "docs" / "guides" / "federation.md").read_text()
    part = text.split("## What a hostile peer can do\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_attack_of_the_table_is_held_by_a_test_that_there_is() -> None:
    found = rows()
    assert len(found) >= 15
    for row in found:
        cited = re.findall(r"`(tests/\S+?\.py)::(\w+)`", row[3])
        assert cited, row
        for path, name in cited:
            tree = ast.parse((ROOT / path).read_text())
            assert name in [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)], (path, name)


def test_every_name_that_is_shown_is_one_that_can_be_said() -> None:
    known = {*CATALOGUE, *RULES, *CODES, "equivocations", "--json", "tieline bill"}
    for row in rows():
        assert [name for name in re.findall(r"`([^`]+)`", row[2]) if name not in known] == [], row


def test_the_attacks_that_every_exchange_has_to_stand_are_in_the_table() -> None:
    said = " ".join(row[0] for row in rows())
    assert [attack for attack in ATTACKS if attack not in said] == []
