"""Face: what every verb shares: who is asked, how data and errors are shown, options with help in two languages."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tieline.cli import words

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.client.context import Context
    from tieline.model.error import TielineError

T = TypeVar("T")
Decorator = Callable[[Any], Any]
Table = dict[str, tuple[str, str]]
INTERRUPTED = 130
RED, YELLOW, GREEN, DIM = "31", "33", "32", "2"


# -- options and verbs whose help is said in the reader's language -----------------------------------------------------


class Option(click.Option):
    """An option whose ``help`` is a key of the catalogue."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its line of help, in the reader's language."""
        record = super().get_help_record(ctx)
        if record is None or not self.help:
            return record
        return record[0], record[1].replace(self.help, words.say(f"opt_{self.help}"), 1)


class Flag(Option):
    """An option without a value."""

    def __init__(self, names: list[str], **attributes: Any) -> None:
        super().__init__(names, is_flag=True, default=False, **attributes)


class Verb(click.Command):
    """A command whose ``help`` is a key of the catalogue; it knows whether ``--`` was written.

    ``--lang`` is understood after the verb as well as before it.
    """

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.append(
            Option(
                ["--lang"],
                type=click.Choice(["en", "zh"]),
                help="lang",
                hidden=True,
                is_eager=True,
                expose_value=False,
                callback=lambda _ctx, _option, lang: words.choose(lang) if lang else None,
            )
        )

    def format_help_text(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What it does, in the reader's language."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(words.say(f"do_{self.help}"))

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """`--help`, in the reader's language."""
        return spoken(super().get_help_option(ctx))

    def get_short_help_str(self, _limit: int = 45) -> str:
        """Its line in the list of its group."""
        return words.say(f"do_{self.help}")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; what stood after ``--`` is kept apart."""
        if "--" in args:
            at = args.index("--")
            ctx.meta["after_dashes"] = args[at + 1 :]
        return super().parse_args(ctx, args)


class Verbs(click.Group):
    """A verb with verbs of its own (`site ls`)."""

    command_class = Verb

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """`--help`, in the reader's language."""
        return spoken(super().get_help_option(ctx))

    def get_short_help_str(self, _limit: int = 45) -> str:
        """Its line in the list of its group."""
        return words.say(f"do_{self.help}")

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """In the order in which they are written."""
        return list(self.commands)

    def format_help_text(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What it does, in the reader's language."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(words.say(f"do_{self.help}"))


def spoken(option: click.Option | None) -> click.Option | None:
    """Click's own option with its help in the reader's language."""
    if option is not None:
        option.help = words.say("opt_help")
    return option


def verb(name: str, key: str = "") -> Callable[[Callable[..., Any]], Verb]:
    """A command called ``name``; ``key`` of the catalogue says what it does."""
    return click.command(name=name, cls=Verb, help=key or name.replace("-", "_"))


def option(*names: str, **attributes: Any) -> Decorator:
    """An option whose ``help`` is a key of the catalogue."""
    return click.option(*names, cls=Option, **attributes)


def flag(*names: str, **attributes: Any) -> Decorator:
    """A flag whose ``help`` is a key of the catalogue."""
    return click.option(*names, cls=Flag, **attributes)


as_json = flag("--json", "as_json", help="json")
yes = flag("-y", "--yes", help="yes")


# -- who is asked -----------------------------------------------------------------------------------------------------


class Face:
    """One invocation: which exchange, and what is told to whom."""

    def __init__(self, exchange: str = "") -> None:
        self.exchange = exchange

    def client(self) -> AsyncClient:
        """A client of the chosen exchange. Raises TielineError when none is known."""
        from tieline.client.context import chosen

        return client_of(chosen(self.exchange))

    def call(self, work: Callable[[AsyncClient], Coroutine[Any, Any, T] | Awaitable[T]]) -> T:
        """Run ``work`` with a client, on a loop of its own."""
        import asyncio

        async def whole() -> T:
            async with self.client() as client:
                return await work(client)

        return asyncio.run(whole())


def client_of(known: Context) -> AsyncClient:
    """A client of one context, for a process that makes a few calls and ends."""
    from tieline.cli.oneshot import OneShot
    from tieline.client.asynchronous import AsyncClient, renewal_of

    client = AsyncClient.of(known)
    client.http = OneShot(known.url, bearer=known.token, ca_file=known.ca_file)
    client.http.renew = renewal_of(known)
    return client


pass_face: Decorator = click.make_pass_decorator(Face)
pass_context: Decorator = click.pass_context


# -- showing ----------------------------------------------------------------------------------------------------------


def is_terminal(stream: Any = None) -> bool:
    """Whether a person reads ``stream`` (stdout)."""
    return bool((stream or sys.stdout).isatty())


def coloured(text: str, colour: str, stream: Any = None) -> str:
    """``text`` in a colour, where a person reads it and did not ask for none (NO_COLOR)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not is_terminal(stream):
        return text
    return f"\033[{colour}m{text}\033[0m"


def show_json(value: Any) -> None:
    """Data as JSON on stdout: the model's own struct, indented, never translated."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def note(text: str = "") -> None:
    """Something for people, on stderr."""
    click.echo(text, err=True)


def marked(mark: str) -> str:
    """`error: ` or `hint: ` in the reader's language and its colour, for stderr."""
    return coloured(words.say(mark), RED if mark == "error" else YELLOW, sys.stderr)


def hint(*commands: str) -> None:
    """The next useful command."""
    for command in commands:
        note(marked("hint") + command)


def confirmed(question: str, is_yes: bool) -> None:
    """Ask a person; without a terminal, or an answer that is no yes, nothing is done (`click.Abort`)."""
    if is_yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(words.say("needs_yes"))
    if not click.confirm(question, default=False, err=True):
        raise Declined


class Declined(click.ClickException):
    """A person answered no; nothing was changed."""

    exit_code = 1

    def __init__(self) -> None:
        super().__init__(words.say("declined"))


def complain(error: BaseException) -> int:
    """Say what went wrong on stderr; the exit code."""
    from tieline.model.error import TielineError

    if isinstance(error, TielineError):
        from tieline.cli.show import show_error
        from tieline.model.error import CODES

        show_error(error)
        return CODES[error.code].exit
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        note(words.say("interrupted"))
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, Declined):
        note(error.message)
        return error.exit_code
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        note(marked("error") + error.format_message())
        if context is not None:
            hint(f"{context.command_path} --help")
        return error.exit_code
    if isinstance(error, OSError):
        named = f"`{error.filename}`: " if error.filename else ""
        note(marked("error") + f"{named}{error.strerror or error}")
        return 1
    raise error


def usage(message: str) -> click.UsageError:
    """A mistake in what was typed."""
    return click.UsageError(message, click.get_current_context(silent=True))


def as_tieline(code: str, message: str, *hints: str) -> TielineError:
    """A refusal made here."""
    from tieline.model.error import TielineError

    return TielineError(code, message, hints=hints)
