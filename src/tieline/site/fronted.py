"""Fronting: pools of machines and clouds that install nothing, from a CSV file or a JSON list. All of it is declared.

Columns (a header line names those that are there): ``name`` and ``cores`` or ``accelerator`` and ``count``; besides
``title``, ``accelerator_memory``, ``memory``, ``disk``, ``price`` (CNY per unit-hour), ``architecture``, ``vendor``,
``region`` and ``tags`` (separated by ``;``).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from tieline.model.accelerators import architecture, named
from tieline.model.error import TielineError
from tieline.model.quantity import money_micro_cny, size_bytes
from tieline.model.spec import PoolSpec

MOST_BYTES = 2**20
MOST_ROWS = 1_000
MOST_CELL = 400
NAME = re.compile(r"[a-z0-9]+(?:-+[a-z0-9]+)*")


def _name(text: str) -> str:
    if not NAME.fullmatch(text) or len(text) > 63:
        raise ValueError(f"`{text[:63]}` is not a name of lower-case letters, digits and `-`")
    return text


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,6}", text):
        raise ValueError(f"`{text[:20]}` is not a number from 1 to 9,999,999")
    return int(text)


def _text(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:MOST_CELL]


COLUMNS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "name": ("", _name),
    "title": ("title", _text),
    "accelerator": ("accelerator", lambda text: named(text).kind),
    "count": ("accelerator_count", _count),
    "accelerator_memory": ("accelerator_memory_bytes", size_bytes),
    "vendor": ("vendor", lambda text: text.strip().lower()),
    "cores": ("core_count", _count),
    "memory": ("memory_bytes", size_bytes),
    "disk": ("disk_bytes", size_bytes),
    "price": ("price_micro_cny_per_accelerator_hour", money_micro_cny),
    "architecture": ("architecture", architecture),
    "tags": ("tags", lambda text: tuple(word for part in text.split(";") if (word := _text(part.strip())))),
}


def from_csv(content: bytes, source: str, site: str) -> dict[str, PoolSpec]:
    """Specs by name of the pool. Raises TielineError `invalid_request` with the line of the first mistake."""
    text = _decoded(content, source)
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise _wrong(source, reader.line_num, f"this is not CSV: {error}") from None
    if not rows:
        raise _wrong(source, 1, "there is no header line")
    header = [cell.strip().lower() for cell in rows[0][1]]
    for name in header:
        if name not in COLUMNS or header.count(name) > 1:
            raise _wrong(source, rows[0][0], f"column `{name[:40]}` is unknown or there twice: {', '.join(COLUMNS)}")
    named_rows = []
    for line, row in rows[1:]:
        if len(row) > len(header):
            raise _wrong(source, line, f"{len(row)} cells under {len(header)} columns")
        named_rows.append((line, dict(zip(header, row, strict=False))))
    return _specs(named_rows, source, site)


def from_json(content: bytes, source: str, site: str) -> dict[str, PoolSpec]:
    """The same from a JSON list of objects. Raises TielineError `invalid_request`."""
    text = _decoded(content, source)
    try:
        rows = msgspec.json.decode(text, type=list[dict[str, str | int | float | None]])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _wrong(source, 1, f"a JSON list of objects is expected: {error}") from None
    numbered = []
    for number, row in enumerate(rows, start=1):
        unknown = [name for name in row if name not in COLUMNS]
        if unknown:
            raise _wrong(source, number, f"`{unknown[0][:40]}` is none of {', '.join(COLUMNS)}")
        numbered.append((number, {name: str(value) for name, value in row.items() if value is not None}))
    return _specs(numbered, source, site)


def _decoded(content: bytes, source: str) -> str:
    if len(content) > MOST_BYTES:
        raise TielineError(
            "too_large", f"`{source}` holds {len(content):,} bytes; {MOST_BYTES:,} are read", where=source
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong(source, content[: error.start].count(b"\n") + 1, "this is not UTF-8") from None


def _specs(rows: Iterable[tuple[int, dict[str, str]]], source: str, site: str) -> dict[str, PoolSpec]:
    specs: dict[str, PoolSpec] = {}
    for line, row in rows:
        if len(specs) >= MOST_ROWS:
            raise _wrong(source, line, f"more than {MOST_ROWS:,} pools")
        name, spec = _spec(row, source, line, site)
        if name in specs:
            raise _wrong(source, line, f"`{name}` is there twice")
        specs[name] = spec
    return specs


def _spec(row: dict[str, str], source: str, line: int, site: str) -> tuple[str, PoolSpec]:
    values: dict[str, Any] = {}
    name = ""
    for column, cell in row.items():
        text = cell.strip()
        if not text:
            continue
        field, convert = COLUMNS[column]
        try:
            value = convert(text[: MOST_CELL + 1])
        except ValueError as error:
            raise _wrong(source, line, f"`{column}`: {error}") from None
        name = value if column == "name" else name
        if field:
            values[field] = value
    if not name:
        raise _wrong(source, line, "`name` is empty")
    has_cards = "accelerator" in values
    if has_cards != ("accelerator_count" in values) or not (has_cards or "core_count" in values):
        raise _wrong(source, line, f"`{name}` needs `cores`, or `accelerator` and `count`")
    try:
        spec = msgspec.convert(
            {**values, "site": site, "engines": (), "compute_class": "ai" if has_cards else "general"}, PoolSpec
        )
    except msgspec.ValidationError as error:
        raise _wrong(source, line, f"`{name}`: {error}") from None
    return name, spec


def _wrong(source: str, line: int, what: str) -> TielineError:
    return TielineError("invalid_request", f"`{source}` line {line}: {what}", where=f"{source}:{line}")
