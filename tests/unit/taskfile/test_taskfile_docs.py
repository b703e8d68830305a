"""The pages about task files: tables made from the rows, every example read, every shown message real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tieline.model.accelerators import ACCELERATORS
from tieline.model.error import TielineError
from tieline.model.reason import sentence
from tieline.model.taskfile import parse_tasks
from tieline.model.taskfile.dialects import EQUIVALENTS, rows, table_of
from tieline.model.taskfile.reference import TABLES, markdown, rewritten

DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = DOCS / "reference" / "task-file.md"
GUIDE = DOCS / "guides" / "bring-your-yaml.md"
BLOCKS = [
    pytest.param(block, mark == "<!-- refused -->\n", id=f"{page.stem}-{number}")
    for page in (REFERENCE, GUIDE)
    for number, (mark, block) in enumerate(
        re.findall(r"(<!-- refused -->\n)?```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    )
]


def test_the_tables_of_the_reference_are_those_of_the_rows():
    page = REFERENCE.read_text()
    assert rewritten(page) == page, "write `tieline.model.taskfile.reference.rewritten(page)` to the page"
    assert all(markdown(dialect) in page for dialect in TABLES)


def test_every_kind_of_accelerator_is_named_in_the_reference():
    page = REFERENCE.read_text()
    assert [row.name for row in ACCELERATORS if f"`{row.name}`" not in page] == []


def test_a_row_of_a_table_is_one_line_of_three_cells():
    for dialect in TABLES:
        for line in markdown(dialect).splitlines():
            assert len(re.findall(r"(?<!\\)\|", line)) == 4, line


@pytest.mark.parametrize(("block", "is_refused"), BLOCKS)
def test_every_example_of_the_pages_is_read(block, is_refused):
    if is_refused:
        with pytest.raises(TielineError):
            parse_tasks(block.encode(), "task.yaml")
    else:
        assert parse_tasks(block.encode(), "task.yaml")


def test_the_messages_that_the_pages_show_are_real():
    reference = re.search(r"<!-- refused -->\n```yaml\n(.*?)```\n\n```text\n(.*?)```", REFERENCE.read_text(), re.DOTALL)
    assert reference is not None
    _assert_said(reference[1], "task.yaml", reference[2])
    text = "resources:\n  acelerators: H100\ncommands: [x]\nfile_mounts:\n  ../etc: x\nworkdir: .\n"
    guide = re.search(r"```text\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert guide is not None
    _assert_said(text, "train.yaml", guide[1])


def _assert_said(text: str, source: str, shown: str) -> None:
    with pytest.raises(TielineError) as caught:
        parse_tasks(text.encode(), source)
    said = [f"error: {caught.value.message}", *(f"  {sentence(reason)}" for reason in caught.value.reasons)]
    assert shown.splitlines() == said


EXAMPLES = [
    pytest.param(dialect, row, id=f"{dialect}-{row.path}")
    for dialect in ("skypilot", "dstack")
    for row in rows(dialect)
    if row.example and re.fullmatch(r"(resources\.)?[a-z_]+(\[\]|\.\*)?", row.path)
]


@pytest.mark.parametrize(("dialect", "row"), EXAMPLES)
def test_the_example_of_every_row_is_read(dialect, row):
    text = f"resources:\n  {row.example}\n" if row.path.startswith("resources.") else f"{row.example}\n"
    lacks = {"skypilot": ("run",), "dstack": ("type", "commands")}[dialect]
    for name in lacks:
        if not re.search(rf"^{name}:", text, re.MULTILINE):
            text += {"run": "run: x\n", "type": "type: task\n", "commands": "commands: [x]\n"}[name]
    if row.path == "span":
        text += {"skypilot": "num_nodes: 2\n", "dstack": "nodes: 2\n"}[dialect]
    assert parse_tasks(text.encode(), "t.yaml")


@pytest.mark.parametrize("dialect", ["skypilot", "dstack"])
def test_every_row_says_what_it_becomes_or_why_not_and_equivalents_exist(dialect):
    for row in rows(dialect):
        assert not (row.becomes and row.absent), row.path
        assert row.becomes or row.absent or row.shape is None, row.path
    known = table_of(dialect).entries
    for word in EQUIVALENTS[dialect].values():
        head = re.match(r"[a-z_]+", word)
        assert head is not None
        inner = table_of(dialect).entries["resources"][1].entries
        assert head[0] in known or head[0] in inner, word
