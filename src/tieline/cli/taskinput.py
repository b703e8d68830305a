"""What is to be run: a task file, or one command with options; secrets and folders are the submitter's own."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from tieline.cli import words
from tieline.cli.face import as_tieline, flag, option, usage
from tieline.model.error import TielineError
from tieline.model.reason import Reason
from tieline.model.task import Resources, Span, Task

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.taskfile import ParsedTask

MOST_FILE_BYTES = 2**20 + 1  # one more than a task file may hold, so that the parser says that it is too large


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One task as it was asked for, before its bytes are packed."""

    task: Task
    workdir: Path | None = None
    files: tuple[tuple[str, Path], ...] = ()
    notes: tuple[Reason, ...] = ()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one invocation asks for. Showing it never shows a secret."""

    works: tuple[Work, ...]
    pipeline: str = ""
    project: str = ""
    secrets: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Asked({[work.task.name for work in self.works]}, secrets={list(self.secrets)})"

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, without bytes."""
        return tuple(work.task for work in self.works)

    @property
    def notes(self) -> tuple[tuple[Reason, ...], ...]:
        """What the reader of the file remarked, for each task."""
        return tuple(work.notes for work in self.works)

    async def packed(self, client: AsyncClient) -> tuple[Task, ...]:
        """The tasks with their folders and files uploaded."""
        return tuple([await client.pack(each.task, each.workdir, each.files) for each in self.works])


OPTIONS: tuple[Callable[[Any], Any], ...] = (
    option("--accelerator", default="", metavar="KIND[:COUNT]", help="accelerator"),
    option("--count", default=0, type=click.IntRange(0, 10_000_000), help="count"),
    option("--cpus", default=0, type=click.IntRange(0, 10_000_000), help="cpus"),
    option("--memory", default="", metavar="SIZE", help="memory"),
    option("--nodes", default=1, type=click.IntRange(1, 100_000), help="nodes"),
    option("--sites", default=None, type=click.IntRange(2, 8), help="sites"),
    option("--where", default="", metavar="EXPR", help="where"),
    option("--max-price", default="", metavar="CNY", help="max_price"),
    option("--image", default="", help="image"),
    option("--name", default="", help="task_name"),
    option("--env", multiple=True, metavar="NAME[=VALUE]", help="env"),
    option("--secret", multiple=True, metavar="NAME", help="secret"),
    option("--workdir", default="", type=click.Path(file_okay=False), help="workdir"),
    option("--output", multiple=True, metavar="PATH", help="output"),
    option("--network", type=click.Choice(["none", "host"]), default=None, help="network"),
    flag("--trusted", help="trusted"),
    option("--owner", multiple=True, metavar="PREFIX", help="owner_only"),
    option("--budget", default="", metavar="CNY", help="budget"),
    option("--deadline", default="", metavar="TIME", help="deadline"),
    option("--project", default="", metavar="NAME", help="project"),
)
FOR_FILES = ("env", "secret", "name", "project")  # the others say what a file says itself


def task_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """All options that describe a one-line task."""
    for each in reversed(OPTIONS):
        function = each(function)
    return function


def asked(ctx: click.Context, words_given: Sequence[str], options: Mapping[str, Any]) -> Asked:
    """What the command line asks for. Raises TielineError `invalid_task`, or a usage error."""
    command: list[str] | None = ctx.meta.get("after_dashes")
    if command is not None:
        before = list(words_given)[: len(words_given) - len(command)]
        if before or not command:
            raise usage(words.say("file_or_command"))
        return _of_command(command, options)
    if len(words_given) != 1:
        raise usage(words.say("file_or_command"))
    wrong = [
        name for name, value in options.items() if value and name not in FOR_FILES and (name, value) != ("nodes", 1)
    ]
    if wrong:
        raise usage(words.say("command_only", option="--" + wrong[0].replace("_", "-")))
    return _of_file(words_given[0], options)


def _of_file(name: str, options: Mapping[str, Any]) -> Asked:
    from tieline.model.taskfile import parse_tasks

    if name == "-":
        text, folder = sys.stdin.buffer.read(MOST_FILE_BYTES), Path()
    else:
        path = Path(name)
        try:
            with open(path, "rb") as file:
                text = file.read(MOST_FILE_BYTES)
        except OSError as error:
            raise as_tieline(
                "invalid_task", f"`{name}` cannot be read: {error.strerror}", "tieline run -- COMMAND  # without a file"
            ) from None
        folder = path.parent
    parsed = parse_tasks(text, name)
    if options.get("name") and len(parsed) != 1:
        raise usage(words.say("one_name"))
    secrets = _secrets_of(parsed)
    extra, values = _given_secrets(options.get("secret", ()))
    works = tuple(_work(one, folder, options, extra) for one in parsed)
    project = options.get("project") or _project_of(parsed)
    return Asked(works=works, pipeline=parsed[0].pipeline, project=project, secrets={**secrets, **values})


def _project_of(parsed: Sequence[ParsedTask]) -> str:
    """The one project that a file names; its tasks are submitted together."""
    names = list(dict.fromkeys(one.project for one in parsed if one.project))
    if len(names) > 1:
        raise as_tieline("invalid_task", f"the tasks of one file name two projects: `{names[0]}` and `{names[1]}`")
    return names[0] if names else ""


def _work(one: ParsedTask, folder: Path, options: Mapping[str, Any], extra: tuple[str, ...]) -> Work:
    task = one.task
    changes: dict[str, Any] = {}
    if options.get("env"):
        changes["envs"] = {**task.envs, **_envs(options["env"])}
    if options.get("name"):
        changes["name"] = options["name"]
    if extra:
        changes["secrets"] = tuple(dict.fromkeys((*task.secrets, *extra)))
    return Work(
        task=_checked(msgspec.structs.replace(task, **changes)),
        workdir=folder / Path(one.workdir).expanduser() if one.workdir else None,
        files=tuple((each.path, folder / Path(each.source).expanduser()) for each in one.files),
        notes=one.notes,
    )


def _secrets_of(parsed: Sequence[ParsedTask]) -> dict[str, str]:
    """Values by name, from the file or this environment; one name has one value in all documents."""
    found: dict[str, str] = {}
    for one in parsed:
        values = dict(one.secrets)
        for name, variable in one.secrets_from.items():
            if variable not in os.environ:
                raise as_tieline(
                    "invalid_task",
                    f"secret `{name}` is taken from `${variable}`, which is not set",
                    f"export {variable}=...",
                )
            values[name] = os.environ[variable]
        for name, value in values.items():
            if found.setdefault(name, value) != value:
                raise as_tieline("invalid_task", f"secret `{name}` has two values in this file")
    return found


def _given_secrets(given: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    values = {}
    for name in given:
        if "=" in name:
            raise usage(words.say("secret_in_command", name=name.partition("=")[0]))
        if name not in os.environ:
            raise as_tieline(
                "invalid_task", f"secret `{name}` is taken from `${name}`, which is not set", f"export {name}=..."
            )
        values[name] = os.environ[name]
    return tuple(values), values


def _envs(given: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE``, or ``NAME`` for the value that it has here."""
    found = {}
    for each in given:
        name, sign, value = each.partition("=")
        if not sign and name not in os.environ:
            raise usage(words.say("env_not_set", name=name))
        found[name] = value if sign else os.environ[name]
    return found


def _of_command(command: Sequence[str], options: Mapping[str, Any]) -> Asked:
    from tieline.model.quantity import duration_us, money_micro_cny, size_bytes

    if options["sites"] and options["nodes"] < 2:
        raise usage(words.say("sites_nodes"))
    kind, count, memory_bytes = _accelerator(options["accelerator"], options["count"])
    secret_names, secrets = _given_secrets(options["secret"])
    max_price = options["max_price"]
    try:
        resources = Resources(
            accelerator=kind,
            accelerator_count=count,
            accelerator_memory_bytes=memory_bytes,
            core_count=options["cpus"],
            memory_bytes=size_bytes(options["memory"]) if options["memory"] else 0,
            image=options["image"],
            max_price_micro_cny=money_micro_cny(max_price) if max_price else None,
            where=options["where"],
        )
        task = Task(
            name=options["name"] or _name_of(command[0]),
            run=command[0] if len(command) == 1 else shlex.join(command),
            nodes=options["nodes"],
            span=Span(sites=options["sites"]) if options["sites"] else None,
            resources=(resources,),
            envs=_envs(options["env"]),
            secrets=secret_names,
            outputs=tuple(options["output"]),
            network=options["network"] or "",
            is_trusted=options["trusted"],
            owners=tuple(options["owner"]),
            budget_micro_cny=money_micro_cny(options["budget"]) if options["budget"] else 0,
            deadline_s=-(-duration_us(options["deadline"]) // 1_000_000) if options["deadline"] else 0,
        )
    except ValueError as error:
        raise TielineError("invalid_task", str(error)) from None
    workdir = Path(options["workdir"]).expanduser() if options["workdir"] else None
    work = Work(task=_checked(task), workdir=workdir)
    return Asked(works=(work,), project=options["project"], secrets=secrets)


def _accelerator(text: str, count: int) -> tuple[str, int, int]:
    """Kind, count and the memory that the spelling states, of ``H100``, ``H100:8`` or ``any``."""
    from tieline.model.accelerators import named

    if not text:
        return ("any", count, 0) if count else ("", 0, 0)
    spelling, sign, number = text.rpartition(":")
    if not sign:
        spelling, number = text, str(count or 1)
    elif count:
        raise usage(words.say("count_twice"))
    try:
        known = named(spelling)
        if not number.isascii() or not number.isdigit() or not int(number):
            raise ValueError(f"`{number[:20]}` is no count of accelerators")  # noqa: TRY301 - one message for both
    except ValueError as error:
        raise TielineError("invalid_task", f"`--accelerator {text[:60]}`: {error}") from None
    return known.kind, int(number), known.memory_bytes


def _name_of(program: str) -> str:
    """A name for a task that is one command: its program."""
    words_of = program.split()
    kept = (
        "".join(
            each if each.isascii() and (each.isalnum() or each in "._-") else "-" for each in Path(words_of[0]).name
        )
        if words_of
        else ""
    )
    return kept[:63].strip("._-") or "task"


def _checked(task: Task) -> Task:
    """``task``, held to the bounds of its struct. Raises TielineError `invalid_task`."""
    try:
        return msgspec.convert(msgspec.to_builtins(task), Task)
    except msgspec.ValidationError as error:
        raise TielineError("invalid_task", str(error)) from None
