"""The command `tieline`: its verbs, and what becomes of an error.

::

    data  -> stdout        notes, plans, questions, errors -> stderr
    exit code: 0 done, 1 failed, 2 usage, 3 no feasible answer, 4 not allowed, 130 interrupted
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from tieline import __version__
from tieline.cli import words
from tieline.cli.face import Face, Flag, Option, Table, complain, spoken

COMMANDS: Table = {
    # verb: (where it is, key of its help line); an empty help line hides it
    "up": ("tieline.cli.up:up", "up"),
    "down": ("tieline.cli.down:down", "down"),
    "status": ("tieline.cli.status:status", "status"),
    "login": ("tieline.cli.login:login", "login"),
    "find": ("tieline.cli.find:find", "find"),
    "ask": ("tieline.cli.ask:ask", "ask"),
    "plan": ("tieline.cli.run:plan", "plan"),
    "run": ("tieline.cli.run:run", "run"),
    "ps": ("tieline.cli.ps:ps", "ps"),
    "logs": ("tieline.cli.jobs:logs", "logs"),
    "exec": ("tieline.cli.exec:run_beside", "exec"),
    "attach": ("tieline.cli.exec:attach", "attach"),
    "why": ("tieline.cli.jobs:why", "why"),
    "stop": ("tieline.cli.jobs:stop", "stop"),
    "fetch": ("tieline.cli.jobs:fetch", "fetch"),
    "usage": ("tieline.cli.money:usage", "usage"),
    "bill": ("tieline.cli.money:bill", "bill"),
    "site": ("tieline.cli.site:site", "site"),
    "exchange": ("tieline.cli.exchange:exchange", "exchange"),
    "id": ("tieline.cli.record:record", "id"),
    "project": ("tieline.cli.project:project", "project"),
    "network": ("tieline.cli.network:network", "network"),
    "reading": ("tieline.cli.reading:reading", "reading"),
    "point": ("tieline.cli.reading:point", "point"),
    "circle": ("tieline.cli.circle:circle", "circle"),
    "transfer": ("tieline.cli.transfer:transfer", "transfer"),
    "circuit": ("tieline.cli.circuit:circuit", "circuit"),
    "calendar": ("tieline.cli.calendar:calendar", "calendar"),
    "token": ("tieline.cli.token:token", "token"),
    "events": ("tieline.cli.events:events", "events"),
    "audit": ("tieline.cli.audit:audit", "audit"),
    "schema": ("tieline.cli.schema:schema", "schema"),
    "demo": ("tieline.cli.demo:demo", "demo"),
    "check": ("tieline.cli.check:check", "check"),
    "sim": ("tieline.cli.sim:sim", "sim"),
    "lab": ("tieline.cli.lab:lab", "lab"),
    "exchange-process": ("tieline.cli.serve:exchange_process", ""),
    "site-process": ("tieline.cli.serve:site_process", ""),
}


class Tieline(click.Group):
    """The group of all verbs. Help of the whole imports none of them."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Every verb that is shown, in the order of the table."""
        return [name for name, (_, line) in COMMANDS.items() if line]

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        module, _, attribute = row[0].partition(":")
        import importlib

        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the verb that was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            raise click.UsageError(words.say("no_such_verb", verb=args[0]) + (f"; {near[0]}?" if near else ""), ctx)
        return super().resolve_command(ctx, args)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """`--help`, in the reader's language."""
        return spoken(super().get_help_option(ctx))

    def format_help_text(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What Tieline is."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(words.say("tieline"))

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs with their lines from the table."""
        with formatter.section(words.say("verbs")):
            formatter.write_dl([(name, words.say(f"do_{line}")) for name, (_, line) in COMMANDS.items() if line])

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Run one verb and end the process with its exit code."""
        extra["standalone_mode"] = False
        try:
            code = super().main(args, prog_name or "tieline", **extra)
        except BaseException as error:  # noqa: BLE001 - every error ends here, as one message and an exit code
            code = complain(error)
        _flush()
        sys.exit(code if isinstance(code, int) else 0)


def _flush() -> None:
    """Write out what is left; a reader that went away is no error (`tieline ps | head -1`)."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _speak(_ctx: click.Context, _option: click.Parameter, lang: str | None) -> None:
    words.choose(lang or "")


def _version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"tieline {__version__}")
        ctx.exit(0)


@click.command(
    cls=Tieline,
    params=[
        Option(
            ["--lang"], type=click.Choice(["en", "zh"]), help="lang", is_eager=True, expose_value=False, callback=_speak
        ),
        Flag(["--version"], help="version", is_eager=True, expose_value=False, callback=_version),
        Option(["--exchange", "-x"], metavar="NAME|URL", default="", help="exchange"),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.pass_context
def tieline(ctx: click.Context, exchange: str) -> None:
    """Find, place and use compute that different people own."""
    ctx.obj = Face(exchange=exchange)


def main() -> NoReturn:
    """The console script."""
    tieline.main()
