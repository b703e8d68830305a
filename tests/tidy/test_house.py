"""House rules as tests. Each failure says what is wrong, where, and what to do instead."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "bench", "docs", "examples", "requirements", ".ci", "scenarios")
ENDINGS = (".py", ".md", ".sh", ".yaml", ".yml", ".txt", ".toml", ".in", ".lark", ".mako", ".json", ".tsv", "")
MOST_LINES = 600
BANNED_MODULES = ("utils", "util", "helpers", "helper", "managers", "manager", "base", "common", "misc")
MARKS = re.compile("|".join((r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b", r"\bXX" + r"X\b")))
MACHINES = re.compile(r"/home/(?!user|me\b|alice)\w+/|/Users/\w+/|/root/\w")
REGISTRIES = re.compile(
    r"\b(?:"
    + "|".join(("pypi" + r"\.org", "pythonhosted" + r"\.org", "registry" + r"\.npmjs", "index" + "-url"))
    + r")\b"
)
UNDATED = ("tests/taskfiles/",)  # files of users, who may name any registry


@cache
def files() -> tuple[Path, ...]:
    """Every text file of the project that a person writes or pins."""
    found = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in (*ENDINGS, "")]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix in ENDINGS]
    return tuple(sorted(path for path in found if "__pycache__" not in path.parts and ".egg-info" not in str(path)))


@cache
def text_of(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def hits(pattern: re.Pattern[str], *, besides: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{name(path)}:{number}: {found[0]}"
        for path in files()
        if not name(path).startswith(besides or ("\0",))
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if (found := pattern.search(line))
    ]


def sources() -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and "src" in path.relative_to(ROOT).parts]


def test_there_is_something_to_look_at():
    assert len(sources()) > 100
    assert len(files()) > 300


def test_files_are_named_by_their_subject():
    banned = [name(path) for path in files() if path.suffix == ".py" and path.stem in BANNED_MODULES]
    assert banned == [], "name it by what it holds, a noun of the glossary"


def test_no_work_is_left_marked_in_the_code():
    assert hits(MARKS) == [], "do it, or write it down under what is not built"


def test_no_path_of_one_machine_is_written_down():
    assert hits(MACHINES, besides=("tests/tidy/",)) == [], "use a path relative to the project or a temporary folder"


def test_no_package_registry_is_named():
    assert hits(REGISTRIES, besides=("tests/tidy/", *UNDATED)) == [], "where packages come from is the machine's affair"


@pytest.mark.parametrize("path", sources(), ids=name)
def test_a_file_has_one_subject(path):
    lines = text_of(path).count("\n")
    assert lines < MOST_LINES, f"{lines} lines: split it by subject"


def test_no_two_test_files_have_one_name():
    names = Counter(
        path.name for path in (ROOT / "tests").rglob("*.py") if path.name not in ("conftest.py", "__init__.py")
    )
    assert [each for each, count in names.items() if count > 1] == [], "pytest imports tests by their file's name"


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in (ROOT / "src" / "tieline").rglob("*.py")}
    lacking = [name(each) for each in sorted(folders) if not (each / "__init__.py").exists()]
    exempt = "migrations/versions"  # Alembic loads these by their path
    assert [each for each in lacking if not each.endswith(exempt)] == [], "add `__init__.py`"


def test_files_end_with_one_line_end_and_have_unix_ones():
    wrong = []
    for path in files():
        if name(path).startswith(("tests/taskfiles/", "requirements/", "tests/recordings/")) or path.name == "LICENSE":
            continue
        text = text_of(path)
        if text and (not text.endswith("\n") or text.endswith("\n\n") or "\r" in text):
            wrong.append(name(path))
    assert wrong == [], "end the file with exactly one line end"


def test_every_module_says_what_it_is():
    silent = [
        name(path) for path in sources() if text_of(path).strip() and not re.match(r'(#.*\n)*"""\S', text_of(path))
    ]
    assert silent == [], "begin with a docstring: the noun, a colon, what it is for"


def test_every_test_has_a_sentence_for_its_name():
    short = []
    for path in files():
        if path.name.startswith("test_") and path.suffix == ".py":
            for each in re.findall(r"^(?:async )?def (test_\w+)", text_of(path), re.MULTILINE):
                if each.count("_") < 3:
                    short.append(f"{name(path)}: {each}")
    assert short == [], "say what must hold"


def test_expected_skips_are_patterns_with_a_reason():
    for line in (ROOT / "tests" / "expected_skips.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            re.compile(line)
