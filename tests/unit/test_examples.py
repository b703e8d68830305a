"""Examples that are made up: the same ones where a change waits for the answer, others elsewhere, repeatable always."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FAILS = """
from hypothesis import given, strategies

@given(strategies.integers(0, 2**60))
def test_that_no_number_is_large(number):
    assert not print(f"number {number}") and number < 2**30
"""


def ran(folder: Path, ci: str) -> str:
    (folder / "conftest.py").write_text((Path(__file__).parents[1] / "conftest.py").read_text())
    (folder / "test_it.py").write_text(FAILS)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "PYTEST"))}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-p", "no:randomly", "test_it.py"]
    env = {**plain, "CI": ci, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False).stdout


@pytest.mark.parametrize(("ci", "is_same"), [("true", True), ("", False)])
def test_examples_are_the_same_where_a_change_waits_and_a_failure_says_how_to_repeat_it(
    tmp_path: Path, ci: str, is_same: bool
) -> None:
    seen = []
    for name in "ab":
        (tmp_path / name).mkdir()
        said = ran(tmp_path / name, ci)
        assert "@reproduce_failure(" in said, said
        seen.append([line for line in said.splitlines() if line.startswith("number ")])
    assert len(seen[0]) > 10
    assert (seen[0] == seen[1]) is is_same
