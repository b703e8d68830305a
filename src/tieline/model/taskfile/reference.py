"""The reference: the field tables of `docs/reference/task-file.md`, made from the rows that read the files."""

from __future__ import annotations

import re

from tieline.model.accelerators import ACCELERATORS
from tieline.model.taskfile.fields import Field
from tieline.model.taskfile.fields_dstack import DSTACK, TYPES
from tieline.model.taskfile.fields_own import OWN
from tieline.model.taskfile.fields_skypilot import SKYPILOT
from tieline.model.taskfile.shapes import Choice, Convert, Free

TABLES = {"own": OWN, "skypilot": SKYPILOT, "dstack": DSTACK}
HEAD = "| field | what may stand there | what it becomes |\n|---|---|---|\n"


def markdown(dialect: str) -> str:
    """The rows of ``own``, ``skypilot`` or ``dstack`` as one Markdown table; alternatives' fields are said once."""
    kept = [row for row in TABLES[dialect] if ".any_of[]." not in row.path and ".ordered[]." not in row.path]
    return HEAD + "".join(_line(row) for row in kept)


def rewritten(page: str) -> str:
    """``page`` with what stands between `<!-- fields: DIALECT -->` or `<!-- kinds -->` and `<!-- end -->` made anew."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- fields: {match[1]} -->\n\n{markdown(match[1])}\n<!-- end -->"

    page = re.sub(r"<!-- fields: (\w+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)
    return re.sub(
        r"<!-- kinds -->\n.*?<!-- end -->", f"<!-- kinds -->\n\n{kinds()}\n<!-- end -->", page, flags=re.DOTALL
    )


def kinds() -> str:
    """The known kinds of accelerators, one line per vendor."""
    by_vendor: dict[str, list[str]] = {}
    for row in ACCELERATORS:
        by_vendor.setdefault(row.vendor, []).append(f"`{row.name}`")
    return "".join(f"- {vendor}: {', '.join(names)}\n" for vendor, names in by_vendor.items())


def _line(row: Field) -> str:
    becomes = row.becomes or f"*not applied:* {row.absent}"
    if row.types and set(row.types) != set(TYPES):
        becomes += f" (`type`: {', '.join(row.types)})"
    if row.example:
        becomes += f"<br>`{row.example}`"
    return f"| `{row.path}` | {_words(row)} | {becomes} |\n"


def _words(row: Field) -> str:
    """What may stand at ``row``: of its keys, and of its values."""
    if row.shape is None:
        return "a mapping"
    if isinstance(row.shape, Free):
        return "anything"
    words = row.shape.words
    if isinstance(row.shape, Choice):
        words = ", ".join(f"`{option}`" for option in row.shape.options)
    if isinstance(row.key, Convert):
        return f"{row.key.words}: {words}"
    return words + (", or a list of them" if row.is_lone else "")
