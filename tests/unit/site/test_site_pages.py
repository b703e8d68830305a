"""The pages about sites name what the code has: every field, phase, stimulus, instruction and file of the shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tieline.site import Phase, instruction, stimulus
from tieline.site.fronted import COLUMNS
from tieline.site.siteyaml import FIELDS, parse_site

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs/guides/join-a-site.md").read_text()
PROTOCOL = (ROOT / "docs/internals/site-protocol.md").read_text()


def test_the_guide_has_one_row_for_every_field_and_no_other():
    rows = [f"| `{field.path}` | {field.becomes} |" for field in FIELDS]
    start = GUIDE.index("| `name` |")
    assert GUIDE[start : GUIDE.index("\n\n", start)].splitlines() == rows


def test_the_guide_s_yaml_is_read():
    blocks = [block.split("```")[0] for block in GUIDE.split("```yaml\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        parse_site(block.encode())


def test_the_columns_of_a_front_are_those_that_are_read():
    header = GUIDE.split("```text\n")[1].splitlines()[0].split(",")
    assert set(header) <= set(COLUMNS)


def kinds(module: object, above: type) -> list[str]:
    return [
        name
        for name, each in vars(module).items()
        if isinstance(each, type) and issubclass(each, above) and each is not above
    ]


@pytest.mark.parametrize(
    "names",
    [
        [phase.value for phase in Phase],
        kinds(stimulus, stimulus.Stimulus),
        kinds(instruction, instruction.Instruction),
    ],
)
def test_the_protocol_page_names_everything(names: list[str]):
    assert [name for name in names if f"| `{name}` |" not in PROTOCOL] == []
    assert len(names) >= 5


def test_the_protocol_page_names_the_parts_of_the_shell():
    parts = {path.name for path in (ROOT / "src/tieline/drivers/siteprocess").glob("*.py")}
    named = {name for name in parts if f"`{name}`" in PROTOCOL}
    assert {"line.py", "outbox.py", "journal.py", "attempt.py", "process.py"} <= named
