"""The reference page is what the commands say, and the guides use verbs and options that exist."""

import re
from pathlib import Path

import click
import pytest

from tieline.cli import reference
from tieline.cli.main import COMMANDS, tieline

DOCS = Path(__file__).parents[3] / "docs"


def test_the_reference_page_is_made_from_the_commands():
    written = (DOCS / "reference" / "cli.md").read_text()
    assert written == reference.page(), "run: python -m tieline.cli.reference > docs/reference/cli.md"


def test_every_verb_is_on_the_page():
    page = reference.page()
    for name, (_, line) in COMMANDS.items():
        assert (f"## {name}\n" in page) == bool(line)


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(DOCS)))
def test_every_command_in_the_documentation_exists_with_its_options(path):
    context = click.Context(tieline)
    for kind, block in re.findall(r"```(sh|console|bash)\n(.*?)```", path.read_text(), flags=re.DOTALL):
        prompt = r"\$ " if kind == "console" else r"(?:\$ )?"
        for line in re.findall(rf"^{prompt}(tieline .*)$", block, flags=re.MULTILINE):
            words = line.split("#")[0].split(" -- ")[0].split()[1:]
            command = tieline
            while words and words[0] in ("--lang", "--exchange", "-x"):  # of `tieline` itself, before the verb
                words = words[2:]
            while words and isinstance(command, click.Group) and not words[0].startswith("-"):
                found = command.get_command(context, words.pop(0))
                assert found is not None, line
                command = found
            known = {
                name for option in (*command.params, *tieline.params) for name in (*option.opts, *option.secondary_opts)
            }
            for word in words:
                if re.match(r"--[a-z]", word):
                    assert word.partition("=")[0] in known | {"--help"}, line
