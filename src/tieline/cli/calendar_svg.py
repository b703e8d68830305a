"""The calendar as a picture: a row for each direction of a link, a cell for each column of time, filled as booked."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from tieline.cli.table import stamp

if TYPE_CHECKING:
    from tieline.model.booking_api import CalendarView, LinkBooked

NAME_PX, CELL_PX, ROW_PX, HEAD_PX = 260, 14, 18, 28
CIRCUIT, TRANSFER, AWAY = "#1f4e79", "#7fb2d9", "#999999"


def drawn(shown: CalendarView) -> str:
    """The whole picture, readable without anything else; every cell says its numbers in a title."""
    columns = max((len(each.free_bps) for each in shown.links), default=0)
    width, height = NAME_PX + columns * CELL_PX + 20, HEAD_PX + len(shown.links) * ROW_PX + 20
    rows = [_row(shown, at, each) for at, each in enumerate(shown.links)]
    end_ms = shown.from_ms + columns * shown.column_ms
    parts = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
        '<g font-family="sans-serif" font-size="11">',
        f'<text x="{NAME_PX}" y="16">{stamp(shown.from_ms)}</text>',
        f'<text x="{width - 20}" y="16" text-anchor="end">{stamp(end_ms)}</text>',
        *rows,
        "</g></svg>\n",
    )
    return "\n".join(parts)


def _row(shown: CalendarView, at: int, each: LinkBooked) -> str:
    y = HEAD_PX + at * ROW_PX
    name = escape(f"{each.link}: {each.a} > {each.b}"[:60])  # cut before it is escaped: half of `&amp;` is no XML
    cells = [f'<text x="4" y="{y + 13}">{name}</text>']
    for column, most in enumerate(each.capacity_bps):
        x, tall = NAME_PX + column * CELL_PX, ROW_PX - 3
        held, moved = each.circuit_bps[column], each.transfer_bps[column]
        title = f"{stamp(shown.from_ms + column * shown.column_ms)}: {held + moved:,} of {most:,} bit/s"
        cells.append(
            f'<g><title>{title}</title><rect x="{x}" y="{y}" width="{CELL_PX - 1}" height="{tall}" fill="#eee"/>'
        )
        if not most:
            cells.append(f'<rect x="{x}" y="{y}" width="{CELL_PX - 1}" height="{tall}" fill="{AWAY}"/>')
        else:
            low = min(tall, tall * held // most)
            high = min(tall - low, tall * moved // most)
            cells.append(_bar(x, y + tall - low, low, CIRCUIT) + _bar(x, y + tall - low - high, high, TRANSFER))
        cells.append("</g>")
    return "".join(cells)


def _bar(x: int, y: int, tall: int, colour: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{CELL_PX - 1}" height="{tall}" fill="{colour}"/>' if tall else ""
