"""Tables: aligned columns for people, tab-separated lines for programs; wide characters count as two."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click

from tieline.cli import words
from tieline.cli.face import DIM, coloured, is_terminal

MIN_COLUMN = 8


def width(text: str) -> int:
    """Columns that ``text`` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def clean(text: str) -> str:
    """``text`` on one line, without what a terminal would obey."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if each.isprintable() else " " for each in text)


def cut(text: str, most: int) -> str:
    """``text`` in at most ``most`` columns."""
    if width(text) <= most:
        return text
    kept = ""
    for each in text:
        if width(kept + each) > most - 1:
            break
        kept += each
    return kept + "…"


def lines(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), most: int = 0
) -> list[str]:
    """Aligned lines, the header first; columns in ``right`` are aligned to the right, the last is cut at ``most``."""
    cells = [[clean(each) for each in row] for row in (header, *rows)]
    widths = [max(width(row[column]) for row in cells) for column in range(len(header))]
    made = []
    for row in cells:
        parts = []
        for column, text in enumerate(row):
            gap = " " * (widths[column] - width(text))
            parts.append(gap + text if column in right else text + gap)
        line = "  ".join(parts).rstrip()
        made.append(cut(line, most) if most else line)
    return made


def show(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), err: bool = False
) -> None:
    """Print a table: aligned with a header in the reader's language on a terminal, tab-separated in a pipe.

    On stderr it is always aligned: only people read it.
    """
    header = [words.say(f"col_{column}") for column in columns]
    if err or is_terminal():
        most = shutil.get_terminal_size().columns if is_terminal() else 0
        for number, line in enumerate(lines(header, rows, right=right, most=most)):
            click.echo(coloured(line, DIM) if number == 0 else line, err=err)
        return
    for row in rows:
        click.echo("\t".join(clean(each) for each in row))


def pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Names with their values: aligned on a terminal, tab-separated in a pipe."""
    most = max((width(name) for name, _ in rows), default=0)
    for name, text in rows:
        gap = " " * (most - width(name) + 2) if is_terminal() else "\t"
        click.echo(f"{name}{gap}{clean(text)}".rstrip())


def short(identifier: str) -> str:
    """The name without its prefix, for people; whole in a pipe."""
    return identifier.rpartition("/")[2] if is_terminal() else identifier


def when(ms: int, now_ms: int) -> str:
    """A moment: how long ago for people, RFC 3339 in a pipe."""
    if not ms:
        return "-"
    if is_terminal():
        return words.say("ago", time=age(now_ms - ms))
    return stamp(ms)


def age(ms: int) -> str:
    """A span in whole seconds: ``4 s``."""
    from tieline.model.quantity import show_duration

    return show_duration(ms // 1000 * 1_000_000) if ms >= 1000 else "0 s"


def stamp(ms: int) -> str:
    """RFC 3339, UTC, whole seconds."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
