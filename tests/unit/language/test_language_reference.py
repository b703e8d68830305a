"""The reference pages say what the code says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tieline.language.attributes import ALIASES, KINDS, TABLES
from tieline.language.offer import fields_of
from tieline.language.reference import filled
from tieline.model import kinds as model

ROOT = Path(__file__).parents[3]
PAGES = {"en": ROOT / "docs/reference/language.md", "zh": ROOT / "docs/zh/reference-language.md"}


@pytest.mark.parametrize("lang", PAGES)
def test_the_committed_tables_are_those_of_the_code(lang):
    """Set TIELINE_REWRITE=1 to write the pages anew, and read the difference before committing it."""
    page = PAGES[lang]
    text = page.read_text(encoding="utf-8")
    made = filled(text, lang)
    if os.environ.get("TIELINE_REWRITE"):
        page.write_text(made, encoding="utf-8")
        text = made
    assert made == text
    for table in TABLES.values():
        assert all(f"`{name}" in text for name in table)


@pytest.mark.parametrize("subject", TABLES)
def test_names_aliases_and_kinds_are_sound(subject):
    rows = TABLES[subject].values()
    assert len(ALIASES[subject]) == len(rows)
    assert not {name for name in ALIASES[subject] if name in TABLES[subject] and ALIASES[subject][name] != name}
    assert all(set(row.kinds) <= set(KINDS) for row in rows)
    assert all(row.meaning and row.meaning_zh and row.source for row in rows)


def test_every_source_that_names_a_field_names_one_that_exists():
    structs = {kind.spec.__name__: kind.spec for kind in model.KINDS.values()} | {"Spec": model.Spec}
    for row in TABLES["offer"].values():
        for source in row.source.replace(";", ",").split(","):
            owner, dot, field = source.strip().split(" ")[0].partition(".")
            if dot and owner in structs:
                assert field in structs[owner].__struct_fields__, row


@pytest.mark.parametrize("kind", KINDS)
def test_every_findable_kind_states_something_of_its_own(kind):
    assert any(row.kinds == () or kind in row.kinds for row, _ in fields_of(model.KINDS[kind].spec))
    assert all(not row.kinds or kind in row.kinds for row, _ in fields_of(model.KINDS[kind].spec))
