"""The reference page of the command line, made from the commands themselves.

``python -m tieline.cli.reference`` prints it; `docs/reference/cli.md` is this text, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from tieline.cli import words
from tieline.cli.main import COMMANDS, tieline
from tieline.model.error import CODES

HEAD = """# Command line

Data goes to stdout; plans, questions, progress and errors go to stderr. On a terminal a list is an aligned table with
relative times; in a pipe it is tab-separated without a header, with whole identifiers and RFC 3339 times. `--json`
gives the model's own structs, never translated. `--lang zh`, `TIELINE_LANG=zh` or a Chinese locale makes the rest
Chinese. `NO_COLOR` is honoured.

Which exchange is asked: `--exchange NAME|URL`, else `TIELINE_EXCHANGE`, else the one that `tieline login` or `tieline
up` chose. `TIELINE_TOKEN` replaces the stored token; `TIELINE_HOME` moves the folder that contexts are kept in, which
is `~/.config/tieline`. Inside a laboratory (`tieline lab exec`, which sets `TIELINE_LAB`) contexts are its own.

| exit code | means |
|---|---|
| 0 | done; for `run`: every job succeeded; for `check` and `events --verify`: everything required holds |
| 1 | failed |
| 2 | usage: the command, the file or the expression is wrong |
| 3 | no feasible answer |
| 4 | not allowed |
| 130 | interrupted; a job that was followed goes on |

An error is one line, counted reasons, and commands that would change the answer:

```text
error: nothing here can run `train`: 4 pools considered, none can ever fit
  3  accelerator is not h100
  1  price above 3.20 CNY per unit-hour (lowest 3.45)

hint: tieline find ''  # everything that is offered
```
"""


def page() -> str:
    """The whole page, in English."""
    words.choose("en")
    try:
        return "\n".join([HEAD, *_global(), *_verbs(), *_errors()]).rstrip() + "\n"
    finally:
        words.choose("")


def _global() -> Iterator[str]:
    yield "## Before the verb\n"
    yield from _options(tieline)


def _verbs() -> Iterator[str]:
    context = click.Context(tieline, info_name="tieline")
    for name, (_, line) in COMMANDS.items():
        if not line:
            continue
        command = tieline.get_command(context, name)
        assert command is not None, name
        yield from _verb(f"tieline {name}", name, command)


def _verb(whole: str, name: str, command: click.Command) -> Iterator[str]:
    yield f"## {name}\n" if whole.count(" ") == 1 else f"### {whole.removeprefix('tieline ')}\n"
    yield _sentence(words.say(f"do_{command.help}"))
    context = click.Context(command, info_name=whole)
    if isinstance(command, click.Group):
        if command.invoke_without_command:
            yield from _form(whole, command, context)
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None, inner
            yield from _verb(f"{whole} {inner}", inner, found)
        return
    yield from _form(whole, command, context)


def _form(whole: str, command: click.Command, context: click.Context) -> Iterator[str]:
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece]
    yield f"```text\n{' '.join([whole, *pieces])}\n```\n"
    yield from _options(command)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}.\n"


def _options(command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name="tieline")
    rows = [
        record
        for option in command.params
        if isinstance(option, click.Option) and (record := option.get_help_record(context)) is not None
    ]
    if rows:
        yield "| option | |\n|---|---|"
        yield "".join(f"| `{_cell(names)}` | {_cell(text)} |\n" for names, text in rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _errors() -> Iterator[str]:
    yield "## Error codes\n"
    yield "| code | exit code | HTTP | means | trying again may help |\n|---|---|---|---|---|"
    for name, code in CODES.items():
        yield f"| `{name}` | {code.exit} | {code.status} | {code.meaning} | {'yes' if code.transient else 'no'} |"


if __name__ == "__main__":
    click.echo(page(), nl=False)
