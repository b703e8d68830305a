"""Circle files: access points (CSV, JSON or YAML), candidates and plans (YAML or JSON), readings, as people write them.

::

    point,weight,region,latitude,longitude,node        candidates:
    pudong-1,1200,pudong,31.22,121.54,n7                 - {name: edge-1, kind: site, cost: 900000, latitude: 31.2, ...}

Degrees, times and money are said with their usual units (`reaches: {pudong-1: 0.8ms}`), and become integers. A file is
taken whole or not at all; the refusal says which line or row, and what is wrong with it.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from decimal import Decimal
from io import StringIO
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from tieline.model.circle import AccessPoint, CoverageView, SitePlace
from tieline.model.error import TielineError
from tieline.model.improvement import CandidateFile, Improvement
from tieline.model.quantity import TIME_US, money_micro_cny, scaled
from tieline.model.reading import Reading
from tieline.network.documents import converted, is_json, plain
from tieline.network.import_values import refused, sized

T = TypeVar("T")
MOST_POINTS: Final = 20_000
MOST_READINGS: Final = 2_000_000
COLUMNS: Final = ("point", "weight", "region", "latitude", "longitude", "node")
_NUMBER = re.compile(r"[+-]?[0-9]{1,6}(\.[0-9]{1,15})?")


class Measured(NamedTuple):
    """What a file of readings holds: an earlier answer brings its sites and its moment along."""

    readings: tuple[Reading, ...]
    sites: tuple[SitePlace, ...]
    idle: tuple[str, ...]
    as_of_ms: int


def points_of(content: bytes, source: str) -> tuple[AccessPoint, ...]:
    """Access points. Raises `invalid_request` that names the line or row, `too_large` for too many."""
    if is_json(content):
        rows = plain(content, source)
        rows = rows.get("points") if isinstance(rows, dict) else rows
        if not isinstance(rows, list):
            raise refused(f"`{source}` is no list of points, nor has it one called `points`", source)
    else:
        rows = _table(content, source)
    if not rows:
        raise refused(f"`{source}` holds 0 points", source)
    if len(rows) > MOST_POINTS:
        raise TielineError("too_large", f"`{source}` holds {len(rows):,} points, at most {MOST_POINTS:,} are read")
    return tuple(_row(each, f"{source} row {number}") for number, each in enumerate(rows, 1))


def candidates_of(content: bytes, source: str) -> CandidateFile:
    """Candidates with their assumptions."""
    return converted(_said(plain(content, source), source, 0), CandidateFile, source)


def plan_of(content: bytes, source: str) -> Improvement:
    """A plan as it was written."""
    return converted(plain(content, source), Improvement, source)


def readings_of(content: bytes, source: str) -> Measured:
    """Readings: an earlier coverage, a list in JSON, or one in each line."""
    sized(content)
    try:
        if content.lstrip()[:1] == b"[":
            return _alone(msgspec.json.decode(content, type=tuple[Reading, ...]))
        try:
            lines = [line for line in content.splitlines() if line.strip()]
            if len(lines) > MOST_READINGS:
                raise TielineError("too_large", f"`{source}` holds over {MOST_READINGS:,} readings")
            return _alone(tuple(msgspec.json.Decoder(Reading).decode(line) for line in lines))
        except msgspec.DecodeError:
            seen = msgspec.json.decode(content, type=CoverageView)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = f"`{source}` is neither a coverage in JSON nor readings: {error}"
        raise refused(said, source) from None
    return Measured(seen.readings, seen.sites, seen.idle, seen.as_of_ms)


def sha256_of(value: Any) -> str:
    """Of the sorted JSON of structs, so that two plans can be seen to rest on the same."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def _alone(readings: Sequence[Reading]) -> Measured:
    """Readings without an answer around them: every site that they name has compute, and now is when the last ended."""
    ends = sorted({end: None for reading in readings for end in (reading.source, reading.target)})
    sites = tuple(SitePlace(site=end) for end in ends if end.split("/")[1:2] == ["site"])
    return Measured(tuple(readings), sites, (), max((reading.ended_ms for reading in readings), default=0))


def _table(content: bytes, source: str) -> list[Any]:
    """Rows of CSV, empty cells left out; or the list of a YAML document."""
    try:
        text = sized(content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refused(f"`{source}` is not UTF-8: {error}", source) from None
    head = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    if not any(cell.strip() in COLUMNS for cell in head.split(",")):
        rows = plain(content, source)
        rows = rows.get("points") if isinstance(rows, dict) else rows
        if not isinstance(rows, list):
            raise refused(
                f"`{source}` is neither CSV with the columns {', '.join(COLUMNS)} nor a list of points", source
            )
        return rows
    try:
        lines = list(csv.reader(StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise refused(f"`{source}` is no CSV: {error}", source) from None
    header = [cell.strip() for cell in lines[0]]
    for name in header:
        if name not in COLUMNS or header.count(name) > 1:
            raise refused(f"`{source}`: column `{name[:40]}` is none of {', '.join(COLUMNS)}, or there twice", source)
    made = []
    for number, cells in enumerate(lines[1:], 2):
        if len(cells) > len(header) or (cells and len(cells) < len(header)):
            said = f"`{source}` line {number} has {len(cells)} cells, its header {len(header)}"
            raise refused(said, f"{source} line {number}")
        if cells:
            made.append({name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()})
    return made


def _row(tree: Any, where: str) -> AccessPoint:
    return converted(_said(tree, where, 0), AccessPoint, where)


def _said(tree: Any, source: str, depth: int) -> Any:
    """The same values, what people say replaced by the integers of the fields."""
    if depth > 8:
        raise refused(f"`{source}` is nested too deeply", source)
    if isinstance(tree, list):
        return [_said(each, source, depth + 1) for each in tree]
    if not isinstance(tree, dict):
        return tree
    made: dict[str, Any] = {}
    for key, value in tree.items():
        field, read = SAID.get(key, (key, None))
        if field != key and field in tree:
            raise refused(f"`{source}`: `{key}` says the same as `{field}`", source)
        try:
            made[field] = _said(value, source, depth + 1) if read is None else read(value)
        except ValueError as error:
            raise refused(f"`{source}`: `{key}`: {error}", source) from None
    return made


def _number(value: Any, what: str) -> Decimal:
    if not _NUMBER.fullmatch(str(value)):
        raise ValueError(f"`{str(value)[:40]}` is no {what}")
    return Decimal(str(value))


def _degrees_udeg(value: Any) -> int:
    return int((_number(value, "number of degrees") * 1_000_000).to_integral_value())


def _time_us(value: Any) -> int:
    return scaled(str(value), TIME_US, "us")


def _times_us(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ValueError("not a mapping of points to times, such as `{pudong-1: 0.8ms}`")  # noqa: TRY004 - of a file
    return {str(name): _time_us(each) for name, each in value.items()}


def _permille(value: Any) -> int:
    return int(_number(value, "factor") * 1_000)


SAID: Final = {
    # as people write it: the field, and what reads the value
    "latitude": ("latitude_udeg", _degrees_udeg),
    "longitude": ("longitude_udeg", _degrees_udeg),
    "cost": ("cost_micro_cny", lambda value: money_micro_cny(str(value))),
    "reaches": ("reaches_us", _times_us),
    "saves": ("saves_us", _time_us),
    "delay": ("delay_us", _time_us),
    "access": ("access_us", _time_us),
    "detour": ("detour_permille", _permille),
}
