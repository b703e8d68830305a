"""`calendar` and `network tariff`: what is free and booked of each link, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import Face, Verbs, as_json, as_tieline, note, option, pass_face, show_json, verb
from tieline.cli.moment import clock_ms, moment_ms

if TYPE_CHECKING:
    from tieline.model.booking_api import CalendarView, LinkBooked
    from tieline.model.tariff import Tariff

LEVELS = " ▁▂▃▄▅▆▇█"
MOST_FILE_BYTES = 1_000_000


@verb("calendar", "calendar")
@click.argument("link", default="")
@option("--from", "begin", default="", metavar="TIME", help="calendar_from")
@option("--until", default="", metavar="TIME", help="calendar_until")
@option("--columns", default=48, type=click.IntRange(1, 2_016), help="columns")
@option("--svg", default=None, type=click.Path(dir_okay=False, path_type=Path), help="svg")
@as_json
@pass_face
def calendar(face: Face, link: str, begin: str, until: str, columns: int, svg: Path | None, as_json: bool) -> None:
    """What is free and booked."""
    from tieline.model.quantity import show_duration, show_rate

    now_ms = clock_ms()
    span = {"from_ms": moment_ms("--from", begin, now_ms), "until_ms": moment_ms("--until", until, now_ms)}
    shown = face.call(lambda client: client.calendar(link, columns=columns, **span))
    if as_json:
        show_json(shown)
        return
    if svg is not None:
        from tieline.cli.calendar_svg import drawn

        svg.write_text(drawn(shown), encoding="utf-8")
        sums = {"links": len(shown.links), "columns": len(shown.links[0].free_bps) if shown.links else 0}
        note(words.say("svg_written", file=svg, span=show_duration(shown.column_ms * 1_000), **sums))
        return
    rows = [
        (
            each.link,
            f"{each.a} > {each.b}",
            show_rate(max(each.capacity_bps)),
            show_rate(min(each.free_bps)),
            _bar(each),
        )
        for each in shown.links
    ]
    table.show(("link", "way", "rate", "least_free", "busy"), rows, right=(2, 3))
    note(f"{table.stamp(shown.from_ms)} - {table.stamp(_end_ms(shown))}, {show_duration(shown.column_ms * 1_000)}")


def _end_ms(shown: CalendarView) -> int:
    columns = len(shown.links[0].free_bps) if shown.links else 0
    return shown.from_ms + columns * shown.column_ms


def _bar(each: LinkBooked) -> str:
    """How full each column is, one character for each."""
    cells = zip(each.capacity_bps, each.circuit_bps, each.transfer_bps, strict=True)
    return "".join(
        LEVELS[-(-min(held + moved, most) * (len(LEVELS) - 1) // most)] if most else "x" for most, held, moved in cells
    )


# -- prices -----------------------------------------------------------------------------------------------------------


@click.group("tariff", cls=Verbs, help="tariff")
def tariff() -> None:
    """Prices."""


@verb("show", "tariff_show")
@as_json
@pass_face
def show(face: Face, as_json: bool) -> None:
    """The prices now."""
    found = face.call(lambda client: client.tariff())
    if as_json:
        show_json(found)
        return
    _show(found)


@verb("set", "tariff_set")
@click.argument("file", type=click.Path(dir_okay=False, exists=True, allow_dash=True))
@option("--why", default="", help="tariff_why")
@as_json
@pass_face
def set_(face: Face, file: str, why: str, as_json: bool) -> None:
    """New prices."""
    from tieline.model.booking_api import TariffBody

    body = TariffBody(tariff=_read(file), why=why)
    taken = face.call(lambda client: client.change_tariff(body))
    if as_json:
        show_json(taken)
        return
    _show(taken)
    note(words.say("tariff_is"))


def _read(file: str) -> Tariff:
    """A tariff from a JSON file, as `tariff show --json` gives it."""
    import sys

    import msgspec

    from tieline.model.tariff import Tariff

    content = sys.stdin.buffer.read(MOST_FILE_BYTES + 1) if file == "-" else Path(file).read_bytes()
    if len(content) > MOST_FILE_BYTES:
        raise as_tieline("too_large", f"`{file}` is over {MOST_FILE_BYTES:,} bytes")
    try:
        return msgspec.json.decode(content, type=Tariff)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise as_tieline("invalid_request", f"`{file}` is no tariff: {error}") from None


def _show(found: Tariff) -> None:
    from tieline.model.quantity import show_money

    rows = [
        (words.say("tariff_deadline"), f"{show_money(found.deadline_micro_cny_per_gb)} CNY"),
        (words.say("tariff_best_effort"), f"{show_money(found.best_effort_micro_cny_per_gb)} CNY"),
        (words.say("tariff_circuit"), f"{show_money(found.circuit_micro_cny_per_gbps_hour)} CNY"),
        (words.say("tariff_spare"), f"+ {_percent(found.spare_permille)}"),
        (words.say("tariff_late"), _percent(found.late_permille)),
    ]
    for hours in found.hours:
        classes = ", ".join(words.term("class", each.value) for each in hours.classes) or words.say("tariff_all")
        values = {"begin": _clock(hours.begin_s), "end": _clock(hours.end_s), "offset": _offset(found.utc_offset_s)}
        rows.append((words.say("tariff_hours", classes=classes, **values), _percent(hours.permille)))
    table.pairs(rows)


def _percent(permille: int) -> str:
    return f"{permille / 10:g} %"


def _clock(second: int) -> str:
    return f"{second // 3_600:02d}:{second % 3_600 // 60:02d}"


def _offset(seconds: int) -> str:
    return f"{'-' if seconds < 0 else '+'}{_clock(abs(seconds))}"


for _each in (show, set_):
    tariff.add_command(_each)
