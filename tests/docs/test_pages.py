"""The documentation cannot lie: tables equal the code, everything is named, links resolve, marked examples run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import click
import pytest
from page_tables import DOCS, PAGES, ROOT, event_types, page

from tieline.api.app import OPERATIONS
from tieline.cli.main import COMMANDS, tieline
from tieline.model.error import CODES
from tieline.model.limits import reference
from tieline.model.reason import CATALOGUE
from tieline.model.rule import RULES

MARKDOWN = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md")})
NAMES = [str(path.relative_to(ROOT)) for path in MARKDOWN]
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
RUN = re.compile(r"<!-- run -->\n```(python|console)\n(.*?)```", re.DOTALL)


@cache
def text_of(path: str) -> str:
    return (ROOT / path).read_text()


def verbs() -> list[str]:
    """Every verb that is shown, with those of its groups."""
    found = []
    for name, (_, line) in COMMANDS.items():
        if not line:
            continue
        found.append(name)
        command = tieline.get_command(click.Context(tieline), name)
        if isinstance(command, click.Group):
            found += [f"{name} {inner}" for inner in command.list_commands(click.Context(command))]
    return found


@pytest.mark.parametrize("path", PAGES)
def test_the_tables_of_a_page_are_those_of_the_code(path):
    assert (DOCS / path).read_text() == page(path), "write them: `.venv/bin/python tests/docs/page_tables.py`"


def test_every_verb_is_in_the_reference():
    text = text_of("docs/reference/cli.md")
    assert [name for name in verbs() if not re.search(rf"\b(tieline )?{name}\b", text)] == []


def test_every_verb_that_the_documentation_names_exists():
    known = {name.split()[0] for name in verbs()} | {name for name, (_, line) in COMMANDS.items() if not line}
    wrong = []
    for name in NAMES:
        if name.startswith("docs/policy") or name == "CHANGELOG.md":
            continue
        for block in re.findall(r"```(?:sh|console)\n(.*?)```", text_of(name), re.DOTALL):
            for line in block.splitlines():
                said = re.match(r"(?:\$ )?tieline (?:--?\S+(?: (?:zh|en))? )*([a-z][a-z-]*)", line)
                if said and said[1] not in known:
                    wrong.append((name, line))
    assert wrong == []


def test_every_operation_is_in_the_reference():
    text = text_of("docs/reference/api.md")
    assert [operation.label for operation in OPERATIONS if operation.path not in text] == []


def test_every_error_code_limit_event_and_reason_is_in_the_reference():
    reasons = text_of("docs/reference/reasons.md") + text_of("docs/concepts/identifiers-and-records.md")
    for names, text in (
        (CODES, text_of("docs/reference/errors.md")),
        ([row.name for row in reference()], text_of("docs/reference/limits.md")),
        ([kind.__struct_config__.tag for kind in event_types()], text_of("docs/reference/events.md")),
        ([*CATALOGUE, *RULES], reasons),
    ):
        assert [name for name in names if f"`{name}`" not in text] == []


def anchors(path: Path) -> set[str]:
    """The names that the headings of a page can be linked by."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE):
        word = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", word).replace(" ", "-"))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_links_inside_the_project_resolve(name):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", FENCE.sub("", text_of(name)))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (ROOT / name).parent / path if path else ROOT / name
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            broken.append(target)
    assert broken == []


def test_every_page_is_reached_from_the_map():
    seen, ahead = set(), [DOCS / "README.md"]
    while ahead:
        path = ahead.pop().resolve()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        for target in re.findall(r"\]\(([^)\s#]+\.md)[^)]*\)", path.read_text()):
            if not re.match(r"[a-z]+:", target):
                ahead.append(path.parent / target)
    assert [name for name in NAMES if name.startswith("docs/") and (ROOT / name).resolve() not in seen] == []


@pytest.mark.parametrize("name", NAMES)
def test_fences_are_closed(name):
    assert len(re.findall(r"^```", text_of(name), re.MULTILINE)) % 2 == 0


BLOCKS = [
    pytest.param(kind, body, id=f"{name}-{number}")
    for name in NAMES
    for number, (kind, body) in enumerate(RUN.findall((ROOT / name).read_text()))
]


@pytest.mark.parametrize(("kind", "body"), BLOCKS)
def test_an_example_that_is_marked_runs(kind, body):
    """Python runs as it stands. In a console block each `$` line prints what follows it; `...` matches anything."""
    if kind == "python":
        exec(compile(body, "example", "exec"), {"__name__": "example"})
        return
    for command, shown in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n?)*)", body, re.MULTILINE):
        words = shlex.split(command, comments=True)
        assert words[0] == "tieline", command
        done = subprocess.run(
            [sys.executable, "-c", "from tieline.cli.main import main; main()", *words[1:]],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        pattern = ".*".join(re.escape(part) for part in shown.strip().split("..."))
        assert re.fullmatch(pattern, (done.stdout + done.stderr).strip(), re.DOTALL), done


def test_some_examples_are_marked():
    assert len(BLOCKS) >= 2
